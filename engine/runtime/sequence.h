#pragma once

// One choice of one request while the engine works on it, and what the choices of a request have in
// common. Owned by EngineState, touched by the engine thread only. A sequence knows its tokens and
// its blocks; text and device data are others' business.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/adapters/adapter_version.h"
#include "engine/base/strong_id.h"
#include "engine/cache/block_pool.h"
#include "engine/constraint/constraint.h"
#include "engine/request/request.h"
#include "engine/request/sampling_params.h"
#include "engine/runtime/hidden_pool.h"
#include "engine/runtime/tenant_ledger.h"

namespace polyad {

// A request's choices, numbered: ids order by age.
inline SequenceId IdOf(int64_t number, int32_t choice) {
  return SequenceId(number * kMaxChoices + choice);
}
inline int64_t NumberOf(SequenceId id) { return id.value() / kMaxChoices; }

inline std::vector<int32_t> VirtualTokensOf(const AdapterVersion* adapter) {
  std::vector<int32_t> tokens;
  const int64_t num_virtual = adapter == nullptr ? 0 : adapter->num_virtual_tokens();
  for (int64_t i = 0; i < num_virtual; ++i) tokens.push_back(VirtualToken(i));
  return tokens;
}

// What a sequence begins with: the adapter's virtual tokens, then the prompt.
inline std::vector<int32_t> SequenceTokens(const Request& request) {
  std::vector<int32_t> tokens = VirtualTokensOf(request.adapter.get());
  tokens.insert(tokens.end(), request.prompt_tokens.begin(), request.prompt_tokens.end());
  return tokens;
}

struct ActiveRequest {
  int64_t number = 0;
  std::shared_ptr<const Request> request;
  int64_t token_cost = 0;
  int64_t num_virtual = 0;  // places of the adapter's soft prompt, before the prompt
  int64_t num_padding = 0;  // of them empty: they take no position
  TenantLedger::Account* account = nullptr;
  std::vector<int32_t> stop_ids;      // end-of-sequence and the request's own, sorted
  std::vector<bool> choice_finished;  // [n]
  std::vector<TokenLogprob> prompt_logprobs;
  HiddenPool pooled;          // of a request that wants an embedding
  int64_t cached_tokens = 0;  // of the prompt, at the first admission
  int64_t admitted_us = 0;    // 0: still in the queue
  bool prompt_done = false;   // prompt computed; the other choices exist from here on

  // Tokens that it may hold, virtual ones too.
  int64_t max_context(int64_t of_engine) const {
    return request->max_context > 0 ? request->max_context : of_engine;
  }
};

struct Sequence {
  SequenceId id;  // IdOf
  ActiveRequest* owner = nullptr;
  int32_t choice = 0;
  bool running = false;
  std::vector<int32_t> tokens;  // virtual (negative ids), prompt and output
  int64_t num_computed = 0;     // tokens whose K/V are in the cache
  // Running: room for every token in each cache; waiting: empty. Block i of cache c is the element
  // i * num_caches + c. Of the first num_behind blocks of each the places alone are left.
  BlockTable blocks;
  int64_t num_behind = 0;       // wholly behind every layer's sliding window, and given back
  PrefixChain keys;             // root and full computed blocks; empty: nothing is shared
  int64_t num_published = 0;    // full blocks the pool can find
  ConstraintState constrained;  // where the output stands, of a request with a constraint
  int64_t first_token_us = 0;
  int64_t last_token_us = 0;

  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  // Two where the adapter runs each token twice (AdapterVersion::num_caches).
  int64_t num_caches() const {
    const AdapterVersion* adapter = owner->request->adapter.get();
    return adapter == nullptr ? 1 : adapter->num_caches();
  }
  int64_t blocks_for_all() const { return num_caches() * BlocksFor(num_tokens()); }
  int64_t num_prompt() const { return static_cast<int64_t>(owner->request->prompt_tokens.size()); }
  int64_t prompt_begin() const { return owner->num_virtual; }
  int64_t prompt_end() const { return prompt_begin() + num_prompt(); }
  int64_t num_output() const { return num_tokens() - prompt_end(); }
  std::span<const int32_t> output() const {
    return std::span(tokens).subspan(static_cast<size_t>(prompt_end()));
  }
  int64_t num_positions() const { return num_tokens() - owner->num_padding; }

  // First position whose logits are wanted: that of the newest token, or where scoring the prompt
  // stands.
  int64_t first_logits() const {
    const bool scores =
        choice == 0 && !owner->prompt_done && owner->request->output.prompt_logprobs.has_value();
    return scores ? prompt_begin() + static_cast<int64_t>(owner->prompt_logprobs.size())
                  : num_tokens() - 1;
  }
  // First position whose final hidden state is wanted, of a request that wants an embedding: the
  // last token's, or where pooling the prompt stands.
  int64_t first_hidden() const {
    const EmbeddingParams& embedding = *owner->request->embedding;
    const bool all = embedding.pooling == EmbeddingParams::Pooling::kMean;
    return all ? prompt_begin() + owner->pooled.num_rows() : prompt_end() - 1;
  }
  bool embeds() const { return owner->request->embedding.has_value(); }
  // Cached tokens it can start from: never all, so that its next token has logits.
  int64_t max_cached_blocks() const {
    return (embeds() ? first_hidden() : first_logits()) / kBlockTokens;
  }
};

}  // namespace polyad
