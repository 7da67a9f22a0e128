#pragma once

// One immutable version of one adapter, packed for the backend and ready to run: for each layer and
// input group the ops to apply, in program order. Requests hold it by shared_ptr (their lease) and
// finish on the version they began with. Versions are numbered per name and carry a process-unique
// id, which is never reused: the cache and the batch compare ids, not names.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/adapters/soft_prompt.h"
#include "engine/base/digest.h"
#include "engine/base/strong_id.h"
#include "kernels/api/delta_op.h"

namespace polyad {

// Linear sites that read the same input row and write column ranges of the same output: one Apply
// serves a group.
enum class SiteGroup : uint8_t { kQkv, kAttentionOut, kMlpIn, kMlpOut };
inline constexpr int64_t kNumSiteGroups = 4;

struct SiteDelta {
  int64_t y_column = 0;  // first output column within the group's fused output
  std::shared_ptr<const PackedDelta> op;
};

class AdapterVersion {
 public:
  struct Identity {
    AdapterVersionId id;
    std::string name;
    int64_t version = 0;
    Digest digest{};
  };

  AdapterVersion(Identity identity, int64_t num_layers)
      : identity_(std::move(identity)), deltas_(static_cast<size_t>(num_layers * kNumSiteGroups)) {}

  const Identity& identity() const { return identity_; }
  AdapterVersionId id() const { return identity_.id; }

  // Ops of one group of one layer, in the order they are added; empty where the adapter leaves it
  // alone.
  const std::vector<SiteDelta>& At(int64_t layer, SiteGroup group) const {
    return deltas_[static_cast<size_t>(layer * kNumSiteGroups + static_cast<int64_t>(group))];
  }
  // Of all its ops together.
  DeltaCost cost() const {
    DeltaCost sum;
    if (soft_prompt_ != nullptr) sum.bytes += soft_prompt_->bytes;
    for (const auto& group : deltas_) {
      for (const SiteDelta& delta : group) {
        const DeltaCost cost = delta.op->cost();
        sum.bytes += cost.bytes;
        sum.flops_per_token += cost.flops_per_token;
      }
    }
    return sum;
  }
  // Virtual tokens at the head of every sequence; null: none.
  const SoftPrompt* soft_prompt() const { return soft_prompt_.get(); }
  int64_t num_virtual_tokens() const {
    return soft_prompt_ == nullptr ? 0 : soft_prompt_->num_tokens;
  }
  // Not empty (activated LoRA): the adapter acts from the last occurrence of these in the prompt
  // on; rows before it, or all where they do not occur, are the base model's.
  const std::vector<int32_t>& invocation_tokens() const { return invocation_tokens_; }
  // The first of a prompt's tokens whose row runs the adapter (zoo section 5.7: PEFT looks in the
  // prompt alone); past every token where the prompt does not invoke it.
  int64_t BeginIn(std::span<const int32_t> prompt) const {
    if (invocation_tokens_.empty()) return 0;
    const auto found = std::find_end(prompt.begin(), prompt.end(), invocation_tokens_.begin(),
                                     invocation_tokens_.end());
    return found == prompt.end() ? std::numeric_limits<int64_t>::max() : found - prompt.begin();
  }

  // While lowering only.
  void SetSoftPrompt(std::shared_ptr<const SoftPrompt> prompt) { soft_prompt_ = std::move(prompt); }
  void SetInvocationTokens(std::vector<int32_t> tokens) { invocation_tokens_ = std::move(tokens); }
  void Add(int64_t layer, SiteGroup group, SiteDelta delta) {
    deltas_[static_cast<size_t>(layer * kNumSiteGroups + static_cast<int64_t>(group))].push_back(
        std::move(delta));
  }

 private:
  Identity identity_;
  std::vector<std::vector<SiteDelta>> deltas_;  // [layer * kNumSiteGroups + group]
  std::shared_ptr<const SoftPrompt> soft_prompt_;
  std::vector<int32_t> invocation_tokens_;
};

}  // namespace polyad
