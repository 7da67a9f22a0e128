#include "server/request_codec.h"

#include <algorithm>
#include <random>

#include "engine/base/adapter_name.h"
#include "server/field_error.h"
#include "server/tool_codec.h"

namespace polyad {
namespace {

uint64_t DrawSeed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

Status CheckRequestId(const std::string& id) {
  POLYAD_RETURN_IF_ERROR(CheckCount("request_id", id.size(), kMaxRequestIdBytes, "bytes"));
  for (char c : id) {
    if (c <= 0x20 || c >= 0x7f) return FieldError("request_id", "printable ASCII", id);
  }
  return absl::OkStatus();
}

StatusOr<ChatPrompt> DecodeChat(const v1::Chat& chat, const DecodeLimits& limits) {
  if (chat.messages_size() == 0) {
    return FieldError("chat.messages", "at least 1 message", "0");
  }
  POLYAD_RETURN_IF_ERROR(
      CheckRange("chat.messages", int64_t{chat.messages_size()}, 1, kMaxChatMessages));
  for (const v1::ChatMessage& message : chat.messages()) {
    POLYAD_RETURN_IF_ERROR(CheckRange(
        "chat.messages.role", static_cast<int64_t>(message.role().size()), 1, kMaxRoleBytes));
  }
  POLYAD_RETURN_IF_ERROR(CheckCount("chat.messages.content", ContentBytes(chat),
                                    static_cast<size_t>(limits.max_prompt_bytes), "bytes in all"));
  ChatPrompt prompt;
  prompt.add_generation_prompt = !chat.has_add_generation_prompt() || chat.add_generation_prompt();
  prompt.messages.reserve(static_cast<size_t>(chat.messages_size()));
  for (const v1::ChatMessage& message : chat.messages()) {
    ChatTurn& turn = prompt.messages.emplace_back(ChatTurn{message.role(), message.content()});
    POLYAD_RETURN_IF_ERROR(DecodeToolParts(message, turn));
  }
  POLYAD_ASSIGN_OR_RETURN(prompt.tools, DecodeTools(chat));
  return prompt;
}

Status DecodePrompt(const v1::GenerateRequest& request, const DecodeLimits& limits,
                    RequestSpec& spec) {
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kText:
      POLYAD_RETURN_IF_ERROR(CheckCount("text", request.text().size(),
                                        static_cast<size_t>(limits.max_prompt_bytes), "bytes"));
      spec.prompt = TextPrompt{request.text()};
      return absl::OkStatus();
    case v1::GenerateRequest::kTokenIds: {
      if (request.token_ids().ids_size() == 0) {
        return FieldError("token_ids.ids", "at least 1 token id", "0");
      }
      POLYAD_ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                              DecodeTokenIds("token_ids.ids", request.token_ids().ids(),
                                             limits.most_tokens(), limits.vocab_size));
      spec.prompt = TokenPrompt{std::move(ids)};
      return absl::OkStatus();
    }
    case v1::GenerateRequest::kChat: {
      POLYAD_ASSIGN_OR_RETURN(ChatPrompt chat, DecodeChat(request.chat(), limits));
      spec.prompt = std::move(chat);
      return absl::OkStatus();
    }
    case v1::GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  return FieldError("prompt", "one of text, token_ids or chat", "none");
}

Status DecodeLogitBias(const v1::Sampling& sampling, const DecodeLimits& limits,
                       SamplingParams& out) {
  POLYAD_RETURN_IF_ERROR(
      CheckCount("sampling.logit_bias", sampling.logit_bias().size(), kMaxLogitBias, "entries"));
  for (const auto& [id, bias] : sampling.logit_bias()) {
    POLYAD_RETURN_IF_ERROR(
        CheckRange("sampling.logit_bias", int64_t{id}, 0, limits.vocab_size - 1));
    POLYAD_RETURN_IF_ERROR(CheckRange("sampling.logit_bias", double{bias}, -100, 100));
    out.logit_bias.emplace_back(id, bias);
  }
  std::sort(out.logit_bias.begin(), out.logit_bias.end());  // a map has no order; results must
  return absl::OkStatus();
}

StatusOr<SamplingParams> DecodeSampling(const v1::Sampling& sampling, const DecodeLimits& limits) {
  SamplingParams out;
  if (sampling.has_temperature()) out.temperature = sampling.temperature();
  if (sampling.has_top_p()) out.top_p = sampling.top_p();
  if (sampling.has_repetition_penalty()) out.repetition_penalty = sampling.repetition_penalty();
  if (sampling.has_n()) out.num_choices = sampling.n();
  out.top_k = sampling.top_k();
  out.min_p = sampling.min_p();
  out.presence_penalty = sampling.presence_penalty();
  out.frequency_penalty = sampling.frequency_penalty();
  out.seed = sampling.has_seed() ? sampling.seed() : DrawSeed();

  POLYAD_RETURN_IF_ERROR(CheckRange("sampling.temperature", double{out.temperature}, 0, 100));
  if (out.temperature == 0) out.temperature = 0;  // -0 too
  POLYAD_RETURN_IF_ERROR(CheckRange("sampling.top_k", int64_t{out.top_k}, 0, 1 << 30));
  POLYAD_RETURN_IF_ERROR(CheckPositive("sampling.top_p", out.top_p, 1));
  POLYAD_RETURN_IF_ERROR(CheckRange("sampling.min_p", double{out.min_p}, 0, 1));
  POLYAD_RETURN_IF_ERROR(
      CheckRange("sampling.repetition_penalty", double{out.repetition_penalty}, 0.001, 10));
  POLYAD_RETURN_IF_ERROR(
      CheckRange("sampling.presence_penalty", double{out.presence_penalty}, -2, 2));
  POLYAD_RETURN_IF_ERROR(
      CheckRange("sampling.frequency_penalty", double{out.frequency_penalty}, -2, 2));
  POLYAD_RETURN_IF_ERROR(CheckRange("sampling.n", int64_t{out.num_choices}, 1, kMaxChoices));
  POLYAD_RETURN_IF_ERROR(DecodeLogitBias(sampling, limits, out));
  POLYAD_ASSIGN_OR_RETURN(out.allowed_token_ids,
                          DecodeTokenIds("sampling.allowed_token_ids", sampling.allowed_token_ids(),
                                         kMaxAllowedTokenIds, limits.vocab_size));
  return out;
}

StatusOr<StoppingParams> DecodeStopping(const v1::Stopping& stopping, const DecodeLimits& limits) {
  StoppingParams out;
  const int64_t most = std::min(kMaxOutputTokens, limits.most_tokens());
  out.max_tokens =
      stopping.has_max_tokens() ? stopping.max_tokens() : std::min(kDefaultMaxTokens, most);
  out.min_tokens = stopping.min_tokens();
  out.include_stop = stopping.include_stop();
  out.ignore_eos = stopping.ignore_eos();
  POLYAD_RETURN_IF_ERROR(CheckRange("stopping.max_tokens", out.max_tokens, 0, most));
  POLYAD_RETURN_IF_ERROR(CheckRange("stopping.min_tokens", out.min_tokens, 0, out.max_tokens));
  POLYAD_RETURN_IF_ERROR(CheckCount("stopping.stop", static_cast<size_t>(stopping.stop_size()),
                                    kMaxStopStrings, "strings"));
  for (const std::string& stop : stopping.stop()) {
    if (stop.empty() || stop.size() > kMaxStopStringBytes) {
      return FieldError("stopping.stop",
                        absl::StrFormat("strings of 1 to %d bytes", kMaxStopStringBytes),
                        absl::StrFormat("%d bytes", stop.size()));
    }
  }
  out.stop.assign(stopping.stop().begin(), stopping.stop().end());
  POLYAD_ASSIGN_OR_RETURN(out.stop_token_ids,
                          DecodeTokenIds("stopping.stop_token_ids", stopping.stop_token_ids(),
                                         kMaxStopTokenIds, limits.vocab_size));
  return out;
}

StatusOr<ConstraintSpec> DecodeConstraint(const v1::GenerateRequest& request) {
  const v1::Constraint& constraint = request.constraint();
  ConstraintSpec out;
  const auto take = [&](ConstraintSpec::Kind kind, std::string_view field, const std::string& text,
                        int64_t max_bytes) {
    out.kind = kind;
    out.text = text;
    if (text.empty()) return FieldError(field, "at least 1 byte", "0");
    return CheckCount(field, text.size(), static_cast<size_t>(max_bytes), "bytes");
  };
  switch (constraint.kind_case()) {
    case v1::Constraint::kJsonSchema:
      POLYAD_RETURN_IF_ERROR(take(ConstraintSpec::Kind::kJsonSchema, "constraint.json_schema",
                                  constraint.json_schema(), kMaxSchemaBytes));
      break;
    case v1::Constraint::kJsonObject:
      if (constraint.json_object()) out.kind = ConstraintSpec::Kind::kJsonObject;
      break;
    case v1::Constraint::kRegex:
      POLYAD_RETURN_IF_ERROR(take(ConstraintSpec::Kind::kRegex, "constraint.regex",
                                  constraint.regex(), kMaxRegexBytes));
      break;
    case v1::Constraint::kChoice: {
      const auto& options = constraint.choice().options();
      out.kind = ConstraintSpec::Kind::kChoice;
      POLYAD_RETURN_IF_ERROR(CheckRange(
          "constraint.choice.options", static_cast<int64_t>(options.size()), 1, kMaxChoiceOptions));
      for (const std::string& option : options) {
        POLYAD_RETURN_IF_ERROR(CheckCount("constraint.choice.options", option.size(),
                                          static_cast<size_t>(kMaxChoiceBytes), "bytes"));
        out.options.push_back(option);
      }
      break;
    }
    case v1::Constraint::kGrammar:
      POLYAD_RETURN_IF_ERROR(take(ConstraintSpec::Kind::kGrammar, "constraint.grammar",
                                  constraint.grammar(), kMaxGrammarBytes));
      break;
    case v1::Constraint::kToolCalls:
      return DecodeToolConstraint(request);
    case v1::Constraint::KIND_NOT_SET:
      break;
  }
  return out;
}

StatusOr<OutputParams> DecodeOutput(const v1::Output& output) {
  OutputParams out;
  if (output.has_logprobs()) {
    POLYAD_RETURN_IF_ERROR(
        CheckRange("output.logprobs", int64_t{output.logprobs()}, 0, kMaxLogprobs));
    out.logprobs = output.logprobs();
  }
  if (output.has_prompt_logprobs()) {
    POLYAD_RETURN_IF_ERROR(
        CheckRange("output.prompt_logprobs", int64_t{output.prompt_logprobs()}, 0, kMaxLogprobs));
    out.prompt_logprobs = output.prompt_logprobs();
  }
  out.skip_special_tokens = !output.has_skip_special_tokens() || output.skip_special_tokens();
  out.echo = output.echo();
  return out;
}

}  // namespace

StatusOr<std::vector<int32_t>> DecodeTokenIds(std::string_view field,
                                              const google::protobuf::RepeatedField<int32_t>& ids,
                                              int64_t max_count, int64_t vocab_size) {
  POLYAD_RETURN_IF_ERROR(CheckCount(field, static_cast<size_t>(ids.size()),
                                    static_cast<size_t>(max_count), "token ids"));
  for (int32_t id : ids) {
    if (id < 0 || id >= vocab_size) {
      return FieldError(field, absl::StrFormat("token ids in [0, %d)", vocab_size),
                        std::to_string(id));
    }
  }
  return std::vector<int32_t>(ids.begin(), ids.end());
}

Status CheckTokenize(const v1::TokenizeRequest& request, const DecodeLimits& limits) {
  return CheckCount("text", request.text().size(), static_cast<size_t>(limits.max_prompt_bytes),
                    "bytes");
}

StatusOr<std::string> DecodeModel(std::string_view model, const DecodeLimits& limits,
                                  std::string_view field) {
  constexpr std::string_view kExpected =
      "a model or adapter name ([A-Za-z0-9][A-Za-z0-9._-]{0,127}), name@version or base:<base "
      "model>";
  constexpr std::string_view kBase = "base:";
  std::string_view reference = model;
  if (reference.starts_with(kBase)) {
    reference.remove_prefix(kBase.size());
    if (reference != limits.model_name) return FieldError(field, "the base model's name", model);
  }
  if (reference.empty() || reference == limits.model_name) return std::string();
  std::string_view name = reference;
  if (const size_t at = reference.find('@'); at != std::string_view::npos) {
    const std::string_view version = reference.substr(at + 1);
    name = reference.substr(0, at);
    if (version.empty() || version.size() > 18 ||
        version.find_first_not_of("0123456789") != std::string_view::npos) {
      return FieldError(field, kExpected, model);
    }
  }
  if (!IsAdapterName(name)) return FieldError(field, kExpected, model);
  return std::string(reference);
}

Status DecodeAdapters(const v1::GenerateRequest& request, const DecodeLimits& limits,
                      RequestSpec& spec) {
  POLYAD_RETURN_IF_ERROR(CheckCount("adapters", static_cast<size_t>(request.adapters_size()),
                                    kMaxAdapterUses, "parts"));
  if (request.adapters_size() > 0 && !request.model().empty()) {
    return FieldError("adapters", "either model or adapters", "both");
  }
  for (const v1::AdapterUse& use : request.adapters()) {
    AdapterUse part;
    POLYAD_ASSIGN_OR_RETURN(part.name, DecodeModel(use.name(), limits, "adapters.name"));
    if (part.name.empty()) return FieldError("adapters.name", "an adapter name", "none");
    if (use.has_scale()) {
      POLYAD_RETURN_IF_ERROR(
          CheckRange("adapters.scale", double{use.scale()}, -kMaxAdapterScale, kMaxAdapterScale));
      part.scale = use.scale();
    }
    spec.adapters.push_back(std::move(part));
  }
  return absl::OkStatus();
}

StatusOr<RequestSpec> DecodeGenerate(const v1::GenerateRequest& request,
                                     const DecodeLimits& limits) {
  RequestSpec spec;
  POLYAD_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  spec.request_id = request.request_id();
  POLYAD_RETURN_IF_ERROR(DecodeAdapters(request, limits, spec));
  POLYAD_ASSIGN_OR_RETURN(spec.model, DecodeModel(request.model(), limits, "model"));
  POLYAD_ASSIGN_OR_RETURN(spec.sampling, DecodeSampling(request.sampling(), limits));
  POLYAD_ASSIGN_OR_RETURN(spec.stopping, DecodeStopping(request.stopping(), limits));
  POLYAD_ASSIGN_OR_RETURN(spec.constraint, DecodeConstraint(request));
  POLYAD_ASSIGN_OR_RETURN(spec.output, DecodeOutput(request.output()));
  POLYAD_RETURN_IF_ERROR(
      CheckCount("cache.salt", request.cache().salt().size(), kMaxSaltBytes, "bytes"));
  spec.cache = {request.cache().bypass_prefix_cache(), request.cache().salt()};
  POLYAD_RETURN_IF_ERROR(
      CheckRange("priority", int64_t{request.priority()}, -kMaxPriority, kMaxPriority));
  spec.priority = request.priority();
  POLYAD_RETURN_IF_ERROR(
      CheckRange("max_adapter_wait_ms", request.max_adapter_wait_ms(), 0, kMaxAdapterWaitMs));
  spec.max_adapter_wait_ms = request.max_adapter_wait_ms();
  POLYAD_RETURN_IF_ERROR(
      CheckCount("session", request.session().size(), kMaxSessionBytes, "bytes"));
  POLYAD_RETURN_IF_ERROR(DecodePrompt(request, limits, spec));
  return spec;
}

}  // namespace polyad
