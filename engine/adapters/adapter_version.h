#pragma once

// One immutable version of one adapter, packed for the backend and ready to run: for each layer and
// input group the ops to apply, in program order, with the hooks that follow. Requests hold it by
// shared_ptr (their lease) and finish on the version they began with. Versions are numbered per
// name and carry a process-unique id, which is never reused: the cache and the batch compare ids,
// not names.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/soft_prompt.h"
#include "engine/base/digest.h"
#include "engine/base/strong_id.h"
#include "engine/spec/rope_tables.h"
#include "kernels/api/delta_op.h"

namespace polyad {

// Linear sites that read the same input row and write column ranges of the same output: one Apply
// serves a group. kHead is the model's: its layer is the number of layers.
enum class SiteGroup : uint8_t { kQkv, kAttentionOut, kMlpIn, kMlpOut, kHead };
inline constexpr int64_t kNumSiteGroups = 5;

struct SiteDelta {
  int64_t y_column = 0;  // first output column within the group's fused output
  std::shared_ptr<const PackedDelta> op;
  int64_t in = 0;      // kAfter only: how many columns of y it reads, from y_column on
  float scale = 1.0f;  // of the whole term; a composition's
  std::shared_ptr<const SegmentGate> gate = nullptr;  // null: none
  int64_t gate_column = 0;  // outputs only: the columns of y that it multiplies
  int64_t gate_columns = 0;
  int64_t coefficient = -1;  // deltas only: which of the scaling pass's multiplies it; -1: none
};

// Input ops of one site: its columns of the base product read the transformed row.
struct InputOps {
  int64_t column_begin = 0;
  int64_t column_end = 0;
  bool whole_group = false;  // these columns are all of the group's
  std::vector<std::shared_ptr<const PackedDelta>> ops;
};

struct PackedFusion {
  Tap query = Tap::kOutput;
  std::shared_ptr<const PackedDelta> query_map;   // null: the identity
  std::shared_ptr<const PackedDelta> query_bias;  // null: none
  std::vector<std::shared_ptr<const PackedDelta>> keys;
};
inline constexpr int64_t kMaxFused = 16;

struct PackedHook {  // SubLayerHook in adapter_program.h
  std::shared_ptr<const PackedDelta> op;
  Tap input = Tap::kSum;
  Tap skip = Tap::kOutput;
  std::vector<float> norm_weight;  // empty: no norm
  std::vector<float> norm_bias;
  float norm_eps = 1e-5f;
  bool norm_takes_skip = false;
  bool adds_residual = true;
  float scale = 1.0f;  // of f; a composition's
  SegmentGate gate = {};
  std::vector<std::shared_ptr<const PackedDelta>> more = {};
  std::shared_ptr<const PackedFusion> fusion = nullptr;  // null: ops are summed
  Tap outside = Tap::kNone;
  bool joins = false;
  float weight = 1.0f;
  HookRows rows = {};
};

struct PackedCoupling {
  std::shared_ptr<const PackedDelta> first;
  std::shared_ptr<const PackedDelta> second;
};

// Experts of one site: terms multiplied by coefficients that each row's own scores make.
struct PackedMixture {
  struct Expert {
    int64_t index = 0;  // of the coefficient
    SiteDelta term;
  };
  std::shared_ptr<const PackedDelta> scores;
  MixtureRule rule;
  std::vector<Expert> experts;
};

// What an adapter does to one group of one layer.
struct GroupOps {
  std::vector<InputOps> inputs;
  std::vector<SiteDelta> outputs;
  std::vector<SiteDelta> deltas;
  std::vector<PackedMixture> mixtures;
  std::vector<SiteDelta> after;  // never gated
  // Groups that end a sub-layer: kAttentionOut, kMlpOut.
  std::vector<std::shared_ptr<const TokenRouter>> routers;
  std::vector<PackedHook> hooks;

  // Whether the site's own output is wanted apart from the stream it is added to.
  bool wants_own_output() const {
    return !outputs.empty() || !after.empty() || !routers.empty() || !hooks.empty();
  }
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
      : identity_(std::move(identity)),
        groups_(static_cast<size_t>((num_layers + 1) * kNumSiteGroups)) {}

  const Identity& identity() const { return identity_; }
  AdapterVersionId id() const { return identity_.id; }

  // What it does to one group of one layer; nothing where it leaves that alone.
  const GroupOps& At(int64_t layer, SiteGroup group) const { return groups_[Index(layer, group)]; }
  const std::vector<std::shared_ptr<const PackedDelta>>& embedding_ops() const {
    return embedding_ops_;
  }
  // What is added to the stream that enters the first layer.
  const std::vector<SiteDelta>& stream_ops() const { return stream_ops_; }
  // Null where the base's own norm stays. layer is -1 for the final norm.
  const NormVectors* Norm(int64_t layer, NormSite site) const {
    const auto found = norms_.find({layer, site});
    return found == norms_.end() ? nullptr : &found->second;
  }
  bool replaces_norms() const { return !norms_.empty(); }
  // Virtual tokens at the head of every sequence; null: none.
  const SoftPrompt* soft_prompt() const { return soft_prompt_.get(); }
  const std::shared_ptr<const SoftPrompt>& shared_soft_prompt() const { return soft_prompt_; }
  // Places at the head of every sequence, and how many of them are empty.
  int64_t num_virtual_tokens() const {
    return soft_prompt_ == nullptr ? 0 : soft_prompt_->num_slots();
  }
  int64_t num_padding() const { return soft_prompt_ == nullptr ? 0 : soft_prompt_->padding; }
  // Whether its sequences begin with blocks that they all share.
  bool shares_head() const {
    return soft_prompt_ != nullptr && soft_prompt_->is_shared() && !reads_whole_prompt_ &&
           num_caches() == 1;
  }
  const std::vector<GatedPrefix>& gated_prefixes() const { return gated_prefixes_; }
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
  const std::vector<PackedCoupling>& couplings() const { return couplings_; }
  // What it turns queries and keys by in place of the base's tables, where it was trained with
  // another scaling; null: nothing.
  const RopeTables* rope() const { return rope_.get(); }
  const std::shared_ptr<const RopeTables>& shared_rope() const { return rope_; }
  // The longest context of its own scaling; 0: the base's.
  int64_t max_context() const { return max_context_; }
  // What a first pass over the same tokens finds out about them; null: there is none.
  const ScalingPass* scaling_pass() const { return scaling_pass_.get(); }
  // How often a token's keys and values are kept: a first pass has a cache of its own.
  int64_t num_caches() const { return scaling_pass_ == nullptr ? 1 : 2; }
  // Whether what it does depends on a request's whole prompt: the prompt is one chunk, each later
  // token a step of its own, and nothing is shared.
  bool reads_whole_prompt() const { return reads_whole_prompt_; }
  // Whether each of its sequences is a segment of its own.
  bool wants_own_segments() const { return reads_whole_prompt_ || reads_positions_; }
  // Which of several prompts a request runs with.
  PromptChoice ChooseIn(std::span<const int32_t> prompt) const {
    return soft_prompt_ == nullptr ? PromptChoice{} : soft_prompt_->Choose(prompt);
  }
  bool is_composition() const { return !parts_.empty(); }
  // Whether this is that version, or a composition with it.
  bool Uses(AdapterVersionId version) const {
    if (id() == version) return true;
    return std::any_of(parts_.begin(), parts_.end(),
                       [version](const auto& part) { return part->Uses(version); });
  }
  DeltaCost cost() const { return cost_; }  // of all its parts together
  // Goes last, when nothing of the version is in memory any more.
  void HoldMemory(std::shared_ptr<const void> memory) { memory_ = std::move(memory); }

  // While loading only.
  GroupOps& MutableAt(int64_t layer, SiteGroup group) { return groups_[Index(layer, group)]; }
  void AddStreamOp(SiteDelta op) { stream_ops_.push_back(std::move(op)); }
  void AddEmbeddingOp(std::shared_ptr<const PackedDelta> op) {
    embedding_ops_.push_back(std::move(op));
  }
  void ReplaceNorm(int64_t layer, NormSite site, NormVectors norm) {
    norms_[{layer, site}] = std::move(norm);
  }
  void SetSoftPrompt(std::shared_ptr<const SoftPrompt> prompt) { soft_prompt_ = std::move(prompt); }
  void AddGatedPrefix(GatedPrefix prefix) { gated_prefixes_.push_back(std::move(prefix)); }
  void SetInvocationTokens(std::vector<int32_t> tokens) { invocation_tokens_ = std::move(tokens); }
  void SetScalingPass(ScalingPass pass) {
    scaling_pass_ = std::make_shared<const ScalingPass>(std::move(pass));
  }
  void AddCoupling(PackedCoupling coupling) { couplings_.push_back(std::move(coupling)); }
  void SetRope(std::shared_ptr<const RopeTables> rope, int64_t max_context) {
    rope_ = std::move(rope);
    max_context_ = max_context;
  }
  void SetReadsWholePrompt() { reads_whole_prompt_ = true; }
  void SetReadsPositions() { reads_positions_ = true; }
  void AddPart(std::shared_ptr<const AdapterVersion> part) { parts_.push_back(std::move(part)); }
  void AddCost(const DeltaCost& cost) { cost_ += cost; }

 private:
  static size_t Index(int64_t layer, SiteGroup group) {
    return static_cast<size_t>(layer * kNumSiteGroups + static_cast<int64_t>(group));
  }

  std::shared_ptr<const void> memory_;  // first, so that it goes last
  Identity identity_;
  std::vector<GroupOps> groups_;  // [(num_layers + 1) * kNumSiteGroups]; the head's come last
  std::vector<std::shared_ptr<const PackedDelta>> embedding_ops_;
  std::vector<SiteDelta> stream_ops_;
  std::map<std::pair<int64_t, NormSite>, NormVectors> norms_;
  std::shared_ptr<const SoftPrompt> soft_prompt_;
  std::vector<GatedPrefix> gated_prefixes_;
  std::vector<int32_t> invocation_tokens_;
  std::vector<PackedCoupling> couplings_;
  std::shared_ptr<const ScalingPass> scaling_pass_;
  std::shared_ptr<const RopeTables> rope_;
  int64_t max_context_ = 0;
  bool reads_whole_prompt_ = false;
  bool reads_positions_ = false;
  std::vector<std::shared_ptr<const AdapterVersion>> parts_;  // of a composition, in order
  DeltaCost cost_;
};

}  // namespace polyad
