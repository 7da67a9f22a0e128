#pragma once

// From what a client asked to what the engine runs: tokenises, resolves the adapter to a lease,
// checks what only the engine can know (the vocabulary, the context, whether the request can ever
// fit in the cache), compiles the constraint and names the prompt's blocks. Runs on the caller's
// thread, const and thread-safe. Errors are the client's: INVALID_ARGUMENT with the field,
// NOT_FOUND for the model, DEADLINE_EXCEEDED where it is too late already.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/adapters/adapter_version.h"
#include "engine/base/clock.h"
#include "engine/base/status.h"
#include "engine/request/request.h"
#include "engine/runtime/messages.h"
#include "engine/text/tokenizer.h"

namespace polyad {

class Intake {
 public:
  using Lease = std::shared_ptr<const AdapterVersion>;

  struct Parts {
    const Tokenizer& tokenizer;
    Clock& clock;
    std::function<StatusOr<Lease>(std::string_view reference, std::string_view tenant)> acquire;
    std::function<StatusOr<std::vector<int32_t>>(const ChatPrompt& chat)> encode_chat;
    std::function<StatusOr<Lease>(const std::vector<AdapterUse>& uses, std::string_view tenant)>
        compose = nullptr;
    // Bounded, thread-safe; empty: no constraint is served.
    std::function<StatusOr<std::shared_ptr<Constraint>>(const ConstraintSpec& spec)> constrain =
        nullptr;
  };
  struct Options {
    std::string model_name;                  // the base model's: asks for no adapter
    int64_t vocab_size = 0;                  // of the logits
    int64_t hidden_size = 0;                 // of embeddings
    int64_t max_context = 0;                 // tokens of prompt and output, virtual ones too
    std::vector<int64_t> rope_reaches = {};  // the base's (RopeTables::reaches); empty: one
    int64_t num_blocks = 0;
    int64_t max_prompt_bytes = 0;
    int64_t base_flops_per_token = 0;  // adapters cost in proportion; 0: they cost nothing
    bool prefix_cache = true;
    // Of a prompt that an adapter reads whole: tokens, virtual ones too, and tokens to be scored.
    int64_t max_whole_tokens = 0;
    int64_t max_whole_scored = 0;
  };
  Intake(Options options, Parts parts) : options_(std::move(options)), parts_(std::move(parts)) {}

  // `number` is the registry's for this request; `spec.request_id` is set.
  StatusOr<Arrive> Prepare(RequestSpec spec, int64_t number,
                           std::shared_ptr<ResponseSink> sink) const;
  // What of that needs no adapter: ranges and ids.
  Status Check(const RequestSpec& spec) const;
  // Likewise with what takes time: the prompt's tokens and the constraint's automaton.
  Status CheckWholly(const RequestSpec& spec) const;
  // The engine's own request for an adapter's soft prompt (soft_prompt_head.h). INVALID_ARGUMENT
  // where not even that fits.
  StatusOr<Arrive> PrepareHead(Lease adapter, int64_t number,
                               std::shared_ptr<ResponseSink> sink) const;

 private:
  Status CheckEmbedding(const RequestSpec& spec) const;
  Status CheckIds(const RequestSpec& spec) const;
  int64_t MaxContext(const AdapterVersion* adapter) const;
  int64_t NumPositions(const Request& request) const;
  int64_t RopeChoiceOf(const Request& request) const;
  Status CheckFits(const Request& request) const;
  Status CheckWhole(const Request& request) const;
  StatusOr<std::vector<int32_t>> Encode(const RequestSpec& spec) const;
  // Null where none is asked for.
  StatusOr<std::shared_ptr<Constraint>> Constrain(const RequestSpec& spec) const;
  Status ResolveAdapter(const RequestSpec& spec, Request& request) const;
  int64_t TokenCost(const AdapterVersion* adapter) const;
  PrefixChain KeysOf(const Request& request, int64_t number) const;

  const Options options_;
  const Parts parts_;
};

}  // namespace polyad
