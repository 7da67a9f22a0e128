#include "engine/runtime/intake.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "absl/strings/str_format.h"
#include "engine/cache/block_pool.h"
#include "engine/runtime/scheduler.h"
#include "engine/runtime/sequence.h"
#include "engine/runtime/soft_prompt_head.h"
#include "engine/spec/rope_frequencies.h"

namespace polyad {
namespace {

Status CheckRange(const char* field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();  // false for NaN
  return InvalidArgument("%s: expected a value in [%g, %g], got %g", field, low, high, value);
}

Status CheckId(const char* field, int64_t id, int64_t vocab_size) {
  if (id >= 0 && id < vocab_size) return absl::OkStatus();
  return InvalidArgument("%s: expected token ids in [0, %d), got %d", field, vocab_size, id);
}

Status CheckBytes(const char* field, size_t bytes, int64_t limit) {
  if (static_cast<int64_t>(bytes) <= limit) return absl::OkStatus();
  return InvalidArgument("%s: expected at most %d bytes, got %d", field, limit, bytes);
}

}  // namespace

StatusOr<Arrive> Intake::Prepare(RequestSpec spec, int64_t number,
                                 std::shared_ptr<ResponseSink> sink) const {
  POLYAD_RETURN_IF_ERROR(Check(spec));
  auto request = std::make_shared<Request>();
  request->tenant = spec.tenant;
  request->share = spec.share;
  POLYAD_RETURN_IF_ERROR(ResolveAdapter(spec, *request));
  POLYAD_ASSIGN_OR_RETURN(request->prompt_tokens, Encode(spec));
  POLYAD_ASSIGN_OR_RETURN(request->constraint, Constrain(spec));
  if (request->adapter != nullptr) {
    request->adapter_begin = request->adapter->BeginIn(request->prompt_tokens);
    const PromptChoice choice = request->adapter->ChooseIn(request->prompt_tokens);
    request->prompt_row = choice.first;
    request->prompt_scale = choice.scale;
  }
  request->request_id = std::move(spec.request_id);
  request->sampling = std::move(spec.sampling);
  request->stopping = std::move(spec.stopping);
  request->output = spec.output;
  request->embedding = spec.embedding;
  request->cache = std::move(spec.cache);
  request->priority = spec.priority;
  const int64_t now_us = parts_.clock.NowMicros();
  request->arrival_us = now_us - spec.adapter_wait_us;
  request->adapter_wait_us = spec.adapter_wait_us;
  request->deadline_us = spec.deadline_us;
  request->sink = std::move(sink);
  request->max_context = MaxContext(request->adapter.get());
  POLYAD_RETURN_IF_ERROR(CheckFits(*request));
  request->rope_choice = RopeChoiceOf(*request);
  POLYAD_RETURN_IF_ERROR(CheckWhole(*request));
  if (request->deadline_us > 0 && now_us >= request->deadline_us) {
    return DeadlineExceeded("the deadline passed before the request was queued");
  }
  Arrive arrive;
  arrive.number = number;
  arrive.token_cost = TokenCost(request->adapter.get());
  arrive.prompt_keys = KeysOf(*request, number);
  arrive.request = std::move(request);
  return arrive;
}

StatusOr<Arrive> Intake::PrepareHead(Lease adapter, int64_t number,
                                     std::shared_ptr<ResponseSink> sink) const {
  const std::shared_ptr<Request> request =
      MakeHeadRequest(std::move(adapter), parts_.clock.NowMicros());
  request->sink = std::move(sink);
  request->max_context = MaxContext(request->adapter.get());
  POLYAD_RETURN_IF_ERROR(CheckFits(*request));
  request->rope_choice = RopeChoiceOf(*request);
  return Arrive{number, request, KeysOf(*request, number), TokenCost(request->adapter.get())};
}

Status Intake::Check(const RequestSpec& spec) const {
  const SamplingParams& sampling = spec.sampling;
  POLYAD_RETURN_IF_ERROR(CheckRange("sampling.temperature", sampling.temperature, 0, 100));
  POLYAD_RETURN_IF_ERROR(CheckRange("sampling.top_k", sampling.top_k, 0, 1 << 30));
  POLYAD_RETURN_IF_ERROR(CheckRange("sampling.top_p", sampling.top_p, 1e-30, 1));
  POLYAD_RETURN_IF_ERROR(CheckRange("sampling.min_p", sampling.min_p, 0, 1));
  POLYAD_RETURN_IF_ERROR(CheckRange("sampling.n", sampling.num_choices, 1, kMaxChoices));
  POLYAD_RETURN_IF_ERROR(
      CheckRange("sampling.repetition_penalty", sampling.repetition_penalty, 1e-3, 10));
  POLYAD_RETURN_IF_ERROR(CheckRange("sampling.presence_penalty", sampling.presence_penalty, -2, 2));
  POLYAD_RETURN_IF_ERROR(
      CheckRange("sampling.frequency_penalty", sampling.frequency_penalty, -2, 2));
  POLYAD_RETURN_IF_ERROR(CheckRange("priority", spec.priority, -100, 100));
  POLYAD_RETURN_IF_ERROR(
      CheckRange("stopping.max_tokens", static_cast<double>(spec.stopping.max_tokens), 0, 1e9));
  POLYAD_RETURN_IF_ERROR(
      CheckRange("stopping.min_tokens", static_cast<double>(spec.stopping.min_tokens), 0, 1e9));
  if (spec.output.logprobs) {
    POLYAD_RETURN_IF_ERROR(CheckRange("output.logprobs", *spec.output.logprobs, 0, kMaxLogprobs));
  }
  if (spec.output.prompt_logprobs) {
    POLYAD_RETURN_IF_ERROR(
        CheckRange("output.prompt_logprobs", *spec.output.prompt_logprobs, 0, kMaxLogprobs));
  }
  if (spec.embedding) POLYAD_RETURN_IF_ERROR(CheckEmbedding(spec));
  return CheckIds(spec);
}

Status Intake::CheckEmbedding(const RequestSpec& spec) const {
  POLYAD_RETURN_IF_ERROR(CheckRange("embedding.dimensions", spec.embedding->dimensions, 0,
                                    static_cast<double>(options_.hidden_size)));
  if (spec.stopping.max_tokens == 0 && spec.sampling.num_choices == 1 &&
      !spec.output.prompt_logprobs && spec.constraint.empty()) {
    return absl::OkStatus();
  }
  return InvalidArgument("embedding: expected nothing beside it, got tokens to make or to score");
}

Status Intake::CheckIds(const RequestSpec& spec) const {
  const int64_t vocab = options_.vocab_size;
  for (const auto& [id, bias] : spec.sampling.logit_bias) {
    POLYAD_RETURN_IF_ERROR(CheckId("sampling.logit_bias", id, vocab));
    POLYAD_RETURN_IF_ERROR(CheckRange("sampling.logit_bias", bias, -100, 100));
  }
  for (const int32_t id : spec.sampling.allowed_token_ids) {
    POLYAD_RETURN_IF_ERROR(CheckId("sampling.allowed_token_ids", id, vocab));
  }
  for (const int32_t id : spec.stopping.stop_token_ids) {
    POLYAD_RETURN_IF_ERROR(CheckId("stopping.stop_token_ids", id, vocab));
  }
  return absl::OkStatus();
}

Status Intake::CheckWholly(const RequestSpec& spec) const {
  POLYAD_RETURN_IF_ERROR(Check(spec));
  POLYAD_RETURN_IF_ERROR(Encode(spec).status());
  return Constrain(spec).status();
}

StatusOr<std::shared_ptr<Constraint>> Intake::Constrain(const RequestSpec& spec) const {
  if (spec.constraint.empty()) return std::shared_ptr<Constraint>();
  if (!parts_.constrain) return Unimplemented("constraint: expected none, got one");
  return parts_.constrain(spec.constraint);
}

StatusOr<std::vector<int32_t>> Intake::Encode(const RequestSpec& spec) const {
  std::vector<int32_t> ids;
  if (const auto* tokens = std::get_if<TokenPrompt>(&spec.prompt)) {
    for (const int32_t id : tokens->ids) {
      POLYAD_RETURN_IF_ERROR(CheckId("prompt.token_ids", id, options_.vocab_size));
    }
    ids = tokens->ids;
  } else if (const auto* text = std::get_if<TextPrompt>(&spec.prompt)) {
    POLYAD_RETURN_IF_ERROR(CheckBytes("prompt.text", text->text.size(), options_.max_prompt_bytes));
    POLYAD_ASSIGN_OR_RETURN(ids, parts_.tokenizer.Encode(text->text, {}));
  } else {
    const auto& chat = std::get<ChatPrompt>(spec.prompt);
    POLYAD_RETURN_IF_ERROR(
        CheckBytes("prompt.chat", static_cast<size_t>(BytesOf(chat)), options_.max_prompt_bytes));
    if (!parts_.encode_chat)
      return FailedPrecondition("prompt.chat: the model has no chat template");
    POLYAD_ASSIGN_OR_RETURN(ids, parts_.encode_chat(chat));
  }
  if (ids.empty()) return InvalidArgument("prompt: expected at least one token, got none");
  return ids;
}

// An adapter's own scaling says how long its contexts are.
int64_t Intake::MaxContext(const AdapterVersion* adapter) const {
  const bool own = adapter != nullptr && adapter->max_context() > 0;
  return own ? adapter->max_context() : options_.max_context;
}

// Positions that it takes at most. A token that is only sampled needs neither a position nor a
// place in the cache, hence the last one is free. Virtual tokens need both, padding no position.
int64_t Intake::NumPositions(const Request& request) const {
  const AdapterVersion* adapter = request.adapter.get();
  const int64_t num_virtual =
      adapter == nullptr ? 0 : adapter->num_virtual_tokens() - adapter->num_padding();
  const int64_t begin = num_virtual + static_cast<int64_t>(request.prompt_tokens.size());
  const int64_t end = begin + std::max<int64_t>(request.stopping.max_tokens, 1);
  return std::min(end, request.max_context + 1) - 1;
}

// Told before the first token runs and for good, so that chunks, caches and preemptions change
// nothing (docs/decisions/0008-one-rotation-for-a-sequence.md).
int64_t Intake::RopeChoiceOf(const Request& request) const {
  const RopeTables* own = request.adapter == nullptr ? nullptr : request.adapter->rope();
  return RopeChoice(own == nullptr ? options_.rope_reaches : own->reaches(), NumPositions(request));
}

Status Intake::CheckFits(const Request& request) const {
  const int64_t num_padding = request.adapter == nullptr ? 0 : request.adapter->num_padding();
  const int64_t num_virtual =
      request.adapter == nullptr ? 0 : request.adapter->num_virtual_tokens() - num_padding;
  const auto num_prompt = static_cast<int64_t>(request.prompt_tokens.size());
  const int64_t wanted = request.stopping.max_tokens;
  const int64_t most = request.max_context - (wanted > 0 ? 1 : 0) - num_virtual;
  if (num_prompt > most) {
    const std::string beside =
        num_virtual > 0 ? absl::StrFormat(" beside the adapter's %d", num_virtual) : "";
    return InvalidArgument("prompt: expected at most %d tokens%s, got %d",
                           std::max<int64_t>(most, 0), beside, num_prompt);
  }
  const int64_t num_tokens = NumPositions(request) + num_padding;
  const int64_t num_caches = request.adapter == nullptr ? 1 : request.adapter->num_caches();
  if (num_caches * BlocksFor(num_tokens) > options_.num_blocks) {
    return InvalidArgument(
        "prompt and max_tokens: expected at most %d tokens (the K/V cache%s), got %d",
        options_.num_blocks / num_caches * kBlockTokens, num_caches > 1 ? ", twice" : "",
        num_tokens);
  }
  const int64_t quota = request.share.max_kv_blocks;
  if (quota > 0 && num_caches * BlocksFor(num_tokens) > quota) {
    return InvalidArgument(
        "prompt and max_tokens: expected at most %d tokens (the tenant's quota max_kv_mib), got %d",
        quota / num_caches * kBlockTokens, num_tokens);
  }
  return absl::OkStatus();
}

// What an adapter reads as a whole has to run in one step.
Status Intake::CheckWhole(const Request& request) const {
  if (request.adapter == nullptr || !request.adapter->reads_whole_prompt()) return absl::OkStatus();
  const auto num_prompt = static_cast<int64_t>(request.prompt_tokens.size());
  const int64_t num_tokens = request.adapter->num_virtual_tokens() + num_prompt;
  if (num_tokens > options_.max_whole_tokens) {
    return InvalidArgument(
        "prompt: adapter '%s' reads the whole prompt in one step: expected at most %d tokens with "
        "its virtual ones, got %d",
        request.adapter_identity.name, options_.max_whole_tokens, num_tokens);
  }
  if (request.output.prompt_logprobs && num_prompt > options_.max_whole_scored) {
    return InvalidArgument(
        "output.prompt_logprobs: adapter '%s' reads the whole prompt in one step, which scores at "
        "most %d tokens, got %d",
        request.adapter_identity.name, options_.max_whole_scored, num_prompt);
  }
  return absl::OkStatus();
}

Status Intake::ResolveAdapter(const RequestSpec& spec, Request& request) const {
  constexpr std::string_view kBase = "base:";
  request.adapter_identity.name = options_.model_name;
  std::string_view name = spec.model;
  if (name.starts_with(kBase)) {
    name.remove_prefix(kBase.size());
    if (name != options_.model_name) return NotFound("model: no base model named %s", name);
  }
  if (!spec.adapters.empty()) {
    POLYAD_ASSIGN_OR_RETURN(request.adapter, parts_.compose(spec.adapters, request.tenant));
  } else if (name.empty() || name == options_.model_name) {
    return absl::OkStatus();
  } else {
    POLYAD_ASSIGN_OR_RETURN(request.adapter, parts_.acquire(name, request.tenant));
  }
  const AdapterVersion::Identity& identity = request.adapter->identity();
  request.adapter_identity = {identity.name, identity.version, ToHex(identity.digest)};
  return absl::OkStatus();
}

int64_t Intake::TokenCost(const AdapterVersion* adapter) const {
  if (adapter == nullptr || options_.base_flops_per_token <= 0) return kBaseTokenCost;
  const double share = static_cast<double>(adapter->cost().flops_per_token) /
                       static_cast<double>(options_.base_flops_per_token);
  const int64_t passes = adapter->num_caches();  // each through the base
  return passes * kBaseTokenCost + std::llround(share * static_cast<double>(kBaseTokenCost));
}

// Choices of one request share their prompt even where the client asked for no sharing with others.
// A soft prompt's blocks are every tenant's of the adapter, whatever is said of sharing prompts,
// but where each request chooses and scales its own; blocks before an invocation are the tenant's
// with the base model. Nothing of a prompt that is read whole can be shared: what a token computes
// depends on all of it. Keys name the blocks of one cache, so two are not shared.
PrefixChain Intake::KeysOf(const Request& request, int64_t number) const {
  const AdapterVersion* adapter = request.adapter.get();
  if (adapter != nullptr && (adapter->reads_whole_prompt() || adapter->num_caches() > 1)) return {};
  const bool shares_prompt = adapter != nullptr && adapter->shares_head();
  const bool chooses_prompt =
      adapter != nullptr && adapter->soft_prompt() != nullptr && !shares_prompt;
  const bool is_private =
      request.cache.bypass_prefix_cache || !options_.prefix_cache || chooses_prompt;
  if (is_private && request.sampling.num_choices == 1 && !shares_prompt) return {};
  PrefixRoot root;
  root.tenant = request.tenant;
  root.salt = request.cache.salt;
  root.private_request = is_private ? number : 0;
  root.rope_choice = request.rope_choice;
  PrefixChain chain;
  chain.tail_owner = OwnerOf(request.tenant);
  chain.head_owner = chain.tail_owner;
  if (request.adapter_begin > 0) {
    chain.keys = {RootKey(root)};
    chain.num_head_blocks = request.adapter_begin / kBlockTokens;
  }
  if (adapter != nullptr) {
    root.adapter_digest = adapter->identity().digest;
    root.adapter_version = adapter->id();
  }
  const PrefixKey owner = RootKey(root);
  if (shares_prompt) {
    PrefixChain head = HeadChain(*adapter, request.rope_choice);
    chain.keys = std::move(head.keys);
    chain.num_head_blocks = head.num_head_blocks;
    // A composition comes and goes with its requests; nobody forgets its blocks.
    if (!adapter->is_composition()) chain.head_owner = kSoftPrompts;
  }
  if (chain.keys.empty()) {
    chain.keys = {owner};
  } else {
    chain.owner = owner;
  }
  ExtendKeys(SequenceTokens(request), chain);
  return chain;
}

}  // namespace polyad
