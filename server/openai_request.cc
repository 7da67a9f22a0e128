#include "server/openai_request.h"

#include <algorithm>
#include <map>
#include <optional>

#include "engine/io/json.h"
#include "server/field_error.h"
#include "server/json_reader.h"
#include "server/openai_constraint.h"
#include "server/request_codec.h"

namespace polyad {
namespace {

using Setter = Status (*)(const std::string& name, const Json& value, OpenAiRequest& out);

// ---- one setter per field ----

#define POLYAD_SETTER(Name, Read, statement)                                    \
  Status Name(const std::string& name, const Json& value, OpenAiRequest& out) { \
    POLYAD_ASSIGN_OR_RETURN(const auto read, Read(name, value));                \
    statement;                                                                  \
    return absl::OkStatus();                                                    \
  }
POLYAD_SETTER(SetStream, JsonBool, out.stream = read)
POLYAD_SETTER(SetTemperature, JsonFloat, out.generate.mutable_sampling()->set_temperature(read))
POLYAD_SETTER(SetTopP, JsonFloat, out.generate.mutable_sampling()->set_top_p(read))
POLYAD_SETTER(SetMinP, JsonFloat, out.generate.mutable_sampling()->set_min_p(read))
POLYAD_SETTER(SetPresence, JsonFloat, out.generate.mutable_sampling()->set_presence_penalty(read))
POLYAD_SETTER(SetFrequency, JsonFloat, out.generate.mutable_sampling()->set_frequency_penalty(read))
POLYAD_SETTER(SetRepetition, JsonFloat,
              out.generate.mutable_sampling()->set_repetition_penalty(read))
POLYAD_SETTER(SetN, JsonInt32, out.generate.mutable_sampling()->set_n(read))
POLYAD_SETTER(SetEcho, JsonBool, out.generate.mutable_output()->set_echo(read))
POLYAD_SETTER(SetIgnoreEos, JsonBool, out.generate.mutable_stopping()->set_ignore_eos(read))
POLYAD_SETTER(SetIncludeStop, JsonBool, out.generate.mutable_stopping()->set_include_stop(read))
POLYAD_SETTER(SetMinTokens, JsonInt32, out.generate.mutable_stopping()->set_min_tokens(read))
POLYAD_SETTER(SetPriority, JsonInt32, out.generate.set_priority(read))
POLYAD_SETTER(SetSalt, JsonString, out.generate.mutable_cache()->set_salt(read))
POLYAD_SETTER(SetSession, JsonString, out.generate.set_session(read))
POLYAD_SETTER(SetRequestId, JsonString, out.generate.set_request_id(read))
POLYAD_SETTER(SetLogprobs, JsonInt32, out.generate.mutable_output()->set_logprobs(read))
POLYAD_SETTER(SetSkipSpecial, JsonBool,
              out.generate.mutable_output()->set_skip_special_tokens(read))
POLYAD_SETTER(SetGenerationPrompt, JsonBool,
              out.generate.mutable_chat()->set_add_generation_prompt(read))
POLYAD_SETTER(SetToolChoice, ReadToolChoice, out.tool_choice = read)
POLYAD_SETTER(SetParallelCalls, JsonBool, out.parallel_tool_calls = read)
POLYAD_SETTER(SetModel, JsonString, out.model = read)
#undef POLYAD_SETTER

// vLLM says -1 for "all"; so do its users.
Status SetTopK(const std::string& name, const Json& value, OpenAiRequest& out) {
  POLYAD_ASSIGN_OR_RETURN(const int32_t top_k, JsonInt32(name, value));
  out.generate.mutable_sampling()->set_top_k(top_k == -1 ? 0 : top_k);
  return absl::OkStatus();
}

Status SetSeed(const std::string& name, const Json& value, OpenAiRequest& out) {
  if (!value.is_number_integer()) return WrongJsonType(name, "an integer", value);
  out.generate.mutable_sampling()->set_seed(value.is_number_unsigned()
                                                ? value.get<uint64_t>()
                                                : static_cast<uint64_t>(value.get<int64_t>()));
  return absl::OkStatus();
}

Status SetMaxTokens(const std::string& name, const Json& value, OpenAiRequest& out) {
  POLYAD_ASSIGN_OR_RETURN(const int64_t tokens, JsonInt(name, value, 0, kMaxOutputTokens));
  out.generate.mutable_stopping()->set_max_tokens(tokens);
  return absl::OkStatus();
}

Status SetStop(const std::string& name, const Json& value, OpenAiRequest& out) {
  v1::Stopping* stopping = out.generate.mutable_stopping();
  if (value.is_string()) {
    stopping->add_stop(value.get<std::string>());
    return absl::OkStatus();
  }
  if (!value.is_array()) return WrongJsonType(name, "a string or an array of strings", value);
  POLYAD_RETURN_IF_ERROR(CheckCount(name, value.size(), kMaxStopStrings, "strings"));
  for (const Json& item : value) {
    POLYAD_ASSIGN_OR_RETURN(*stopping->add_stop(), JsonString(name, item));
  }
  return absl::OkStatus();
}

Status SetStopIds(const std::string& name, const Json& value, OpenAiRequest& out) {
  return AddJsonInts(name, value, out.generate.mutable_stopping()->mutable_stop_token_ids());
}

Status SetAllowedIds(const std::string& name, const Json& value, OpenAiRequest& out) {
  return AddJsonInts(name, value, out.generate.mutable_sampling()->mutable_allowed_token_ids());
}

Status SetLogitBias(const std::string& name, const Json& value, OpenAiRequest& out) {
  if (!value.is_object()) return WrongJsonType(name, "an object of token id to bias", value);
  POLYAD_RETURN_IF_ERROR(CheckCount(name, value.size(), kMaxLogitBias, "entries"));
  for (const auto& [key, bias] : value.items()) {
    if (key.empty() || key.size() > 9 || key.find_first_not_of("0123456789") != key.npos) {
      return FieldError(name, "token ids as keys", key);
    }
    POLYAD_ASSIGN_OR_RETURN(const float amount, JsonFloat(name, bias));
    (*out.generate.mutable_sampling()->mutable_logit_bias())[std::stoi(key)] = amount;
  }
  return absl::OkStatus();
}

Status SetPrompt(const std::string& name, const Json& value, OpenAiRequest& out) {
  if (value.is_string()) {
    out.generate.set_text(value.get<std::string>());
    return absl::OkStatus();
  }
  constexpr std::string_view kExpected = "one string or one array of token ids";
  if (!value.is_array()) return WrongJsonType(name, kExpected, value);
  if (value.size() == 1 && value[0].is_string()) {
    out.generate.set_text(value[0].get<std::string>());
    return absl::OkStatus();
  }
  const Json& ids = value.size() == 1 && value[0].is_array() ? value[0] : value;
  if (!ids.empty() && !ids[0].is_number()) return WrongJsonType(name, kExpected, ids[0]);
  return AddJsonInts(name, ids, out.generate.mutable_token_ids()->mutable_ids());
}

Status SetStreamOptions(const std::string& name, const Json& value, OpenAiRequest& out) {
  if (!value.is_object()) return WrongJsonType(name, "an object", value);
  for (const auto& [key, option] : value.items()) {
    if (option.is_null()) continue;
    const std::string path = name + "." + key;
    if (key == "include_usage") {
      POLYAD_ASSIGN_OR_RETURN(out.include_usage, JsonBool(path, option));
    } else if (key != "continuous_usage_stats" || option != false) {
      return FieldError(path, "include_usage alone", DescribeJson(option));
    }
  }
  return absl::OkStatus();
}

// A message's content: a string, or text parts, which are one text together.
StatusOr<std::string> TextOfContent(const Json& content) {
  const std::string name = "messages.content";
  if (content.is_null()) return std::string();
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array())
    return WrongJsonType(name, "a string or an array of text parts", content);
  std::string text;
  for (const Json& part : content) {
    if (!part.is_object() || !part.contains("type") || part["type"] != "text" ||
        !part.contains("text") || !part["text"].is_string()) {
      return FieldError(name, "parts of type text", DescribeJson(part));
    }
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

Status SetMessagePart(const std::string& key, const Json& value, v1::ChatMessage& message) {
  const std::string name = "messages." + key;
  if (key == "name") {
    POLYAD_ASSIGN_OR_RETURN(*message.mutable_name(), JsonString(name, value));
  } else if (key == "tool_call_id") {
    POLYAD_ASSIGN_OR_RETURN(*message.mutable_tool_call_id(), JsonString(name, value));
  } else if (key == "tool_calls") {
    return ReadToolCalls(name, value, message);
  } else {
    return FieldError(name, "role, content, name, tool_calls and tool_call_id alone",
                      DescribeJson(value));
  }
  return absl::OkStatus();
}

Status SetMessages(const std::string& name, const Json& value, OpenAiRequest& out) {
  if (!value.is_array()) return WrongJsonType(name, "an array of messages", value);
  POLYAD_RETURN_IF_ERROR(CheckCount(name, value.size(), kMaxChatMessages, "messages"));
  for (const Json& item : value) {
    if (!item.is_object()) return WrongJsonType(name, "objects", item);
    v1::ChatMessage* message = out.generate.mutable_chat()->add_messages();
    for (const auto& [key, part] : item.items()) {
      if (key == "role") {
        POLYAD_ASSIGN_OR_RETURN(*message->mutable_role(), JsonString("messages.role", part));
      } else if (key == "content") {
        POLYAD_ASSIGN_OR_RETURN(*message->mutable_content(), TextOfContent(part));
      } else if (!part.is_null()) {
        POLYAD_RETURN_IF_ERROR(SetMessagePart(key, part, *message));
      }
    }
  }
  return absl::OkStatus();
}

Status SetChatLogprobs(const std::string& name, const Json& value, OpenAiRequest& out) {
  POLYAD_ASSIGN_OR_RETURN(const bool wanted, JsonBool(name, value));
  if (wanted && !out.generate.output().has_logprobs()) {
    out.generate.mutable_output()->set_logprobs(0);
  }
  return absl::OkStatus();
}

// Fields whose only served value is the one that changes nothing.
Status OnlyNeutral(const std::string& name, const Json& value, OpenAiRequest&) {
  if (value.is_array() && value.empty()) return absl::OkStatus();  // functions: []
  if (value == "none" || value == false || value == 1) return absl::OkStatus();
  return FieldError(name, "absent: this field is not served", DescribeJson(value));
}

Status Ignore(const std::string&, const Json&, OpenAiRequest&) { return absl::OkStatus(); }

using FieldTable = std::map<std::string, Setter, std::less<>>;

FieldTable SharedFields() {
  return {{"model", SetModel},
          {"stream", SetStream},
          {"stream_options", SetStreamOptions},
          {"max_tokens", SetMaxTokens},
          {"min_tokens", SetMinTokens},
          {"temperature", SetTemperature},
          {"top_p", SetTopP},
          {"top_k", SetTopK},
          {"min_p", SetMinP},
          {"seed", SetSeed},
          {"n", SetN},
          {"stop", SetStop},
          {"stop_token_ids", SetStopIds},
          {"include_stop_str_in_output", SetIncludeStop},
          {"ignore_eos", SetIgnoreEos},
          {"presence_penalty", SetPresence},
          {"frequency_penalty", SetFrequency},
          {"repetition_penalty", SetRepetition},
          {"logit_bias", SetLogitBias},
          {"allowed_token_ids", SetAllowedIds},
          {"skip_special_tokens", SetSkipSpecial},
          {"cache_salt", SetSalt},
          {"priority", SetPriority},
          {"request_id", SetRequestId},
          {"user", SetSession},
          {"store", Ignore},
          {"metadata", Ignore},
          {"service_tier", Ignore},
          {"safety_identifier", Ignore},
          {"prompt_cache_key", Ignore},
          {"guided_decoding_backend", Ignore},
          {"best_of", OnlyNeutral}};
}

FieldTable CompletionFields() {
  FieldTable table = SharedFields();
  table.insert({{"prompt", SetPrompt},
                {"echo", SetEcho},
                {"logprobs", SetLogprobs},
                {"suffix", OnlyNeutral}});
  return table;
}

FieldTable ChatFields() {
  FieldTable table = SharedFields();
  table.insert({{"messages", SetMessages},
                {"max_completion_tokens", SetMaxTokens},
                {"logprobs", SetChatLogprobs},
                {"top_logprobs", SetLogprobs},
                {"add_generation_prompt", SetGenerationPrompt},
                {"tools", Ignore},  // read in their order
                {"tool_choice", SetToolChoice},
                {"functions", OnlyNeutral},
                {"parallel_tool_calls", SetParallelCalls}});
  return table;
}

const FieldTable& TableOf(OpenAiKind kind) {
  static const FieldTable& completion = *new FieldTable(CompletionFields());
  static const FieldTable& chat = *new FieldTable(ChatFields());
  return kind == OpenAiKind::kChat ? chat : completion;
}

}  // namespace

std::vector<std::string> OpenAiFields(OpenAiKind kind) {
  std::vector<std::string> names = ConstraintFields();
  for (const auto& [name, setter] : TableOf(kind)) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

StatusOr<OpenAiRequest> ParseOpenAiRequest(OpenAiKind kind, std::string_view body) {
  const FieldTable& table = TableOf(kind);
  POLYAD_ASSIGN_OR_RETURN(const Json json, ParseJson(body, "body", kHttpBodyLimits));
  if (!json.is_object()) return FieldError("body", "an object", DescribeJson(json));
  OpenAiRequest out;
  out.kind = kind;
  bool has_order = false;  // that means something: of a schema's properties, of tools
  for (const auto& [name, value] : json.items()) {
    if (value.is_null()) continue;
    if (IsConstraintField(name)) {
      has_order = true;
      continue;
    }
    const auto found = table.find(name);
    if (found == table.end()) {
      return FieldError(name, "a field of this endpoint", "an unknown field");
    }
    POLYAD_RETURN_IF_ERROR(found->second(name, value, out));
    if (name == "tools") has_order = true;
  }
  if (has_order) {
    POLYAD_ASSIGN_OR_RETURN(const OrderedJson ordered,
                            ParseOrderedJson(body, "body", kHttpBodyLimits));
    POLYAD_RETURN_IF_ERROR(ReadConstraint(ordered, out.generate));
    const auto tools = ordered.find("tools");
    if (tools != ordered.end() && !tools->is_null()) {
      POLYAD_RETURN_IF_ERROR(ReadTools("tools", *tools, *out.generate.mutable_chat()));
    }
  }
  POLYAD_ASSIGN_OR_RETURN(out.max_tool_calls,
                          ApplyToolChoice(out.tool_choice, out.parallel_tool_calls, out.generate));
  out.generate.set_model(out.model);
  // OpenAI's echo with logprobs scores the prompt as well.
  if (out.generate.output().echo() && out.generate.output().has_logprobs()) {
    out.generate.mutable_output()->set_prompt_logprobs(out.generate.output().logprobs());
  }
  return out;
}

}  // namespace polyad
