#pragma once

// What a family lowers to, in the terms of kernels/api alone: ops at linear sites, replaced norms,
// ops on the embedding, and hooks around the sub-layers. Ops are views: of the AdapterSource, or of
// what the lowering computed and put in the program's arena. Both must outlive packing.

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/adapters/base_weights.h"
#include "engine/adapters/gated_prefix.h"
#include "engine/adapters/scaling_pass.h"
#include "engine/adapters/soft_prompt.h"
#include "engine/spec/model_spec.h"
#include "engine/spec/sites.h"
#include "kernels/api/delta_op.h"

namespace polyad {

// When an op runs at its site (kernels/api/delta_op.h): before the base product, on its result,
// beside it, or on the site's finished output (y += op(y)).
enum class OpStage : uint8_t { kInput, kOutput, kDelta, kAfter };

// A coefficient that a request's own rows make (zoo section 7): the mean, over a segment's rows, of
// sigmoid(weight . x + bias). A segment is the whole prompt, then each later token alone.
struct SegmentGate {
  std::vector<float> weight;  // [cols of x]; empty: no gate
  float bias = 0.0f;
};

// Which of a site's experts a row takes and how much of each (zoo section 1.1, GT): with s the
// scores of the site's raw input, |s| where `absolute`, c = softmax(s / temperature) over the top_k
// largest, and 0 for the others. Lower experts win ties. With `over_segment` each of a segment's
// rows takes the mean of their coefficients (SegmentGate).
struct MixtureRule {
  int64_t num_experts = 0;
  int64_t top_k = 0;
  float temperature = 1.0f;
  bool absolute = false;
  bool over_segment = false;
};
inline constexpr int64_t kMaxExperts = 64;

struct Mixture {
  SiteRef site;
  DeltaOp scores;  // a delta of num_experts outputs: the scores
  MixtureRule rule;
};

struct SiteOp {
  SiteRef site;
  DeltaOp op;
  OpStage stage = OpStage::kDelta;
  // Of the site's raw input. It multiplies a delta; or, after an output op, columns [gate_begin,
  // gate_end) of the site's output.
  SegmentGate gate = {};
  int64_t gate_begin = 0;
  int64_t gate_end = 0;
  // A delta times the coefficient `expert` of program.mixtures[mixture]; -1: as it is.
  int64_t mixture = -1;
  int64_t expert = 0;
  int64_t coefficient = -1;  // which of the scaling pass's multiplies a delta; -1: none
  // The op's Frobenius norm where lowering came by it (delta_norms.h computes the others'); -1:
  // not.
  double norm = -1;
};

// The norm's own weights in place of the base's.
struct NormReplacement {
  int64_t layer = -1;
  NormSite site = NormSite::kFinal;
  std::vector<float> weight;
  std::vector<float> bias;  // empty: none
};

// What a hook reads around a sub-layer (zoo section 1.2): the residual stream entering it (r), that
// stream normed (n), the sub-layer's output before the residual add (o), or r + o (z).
enum class Tap : uint8_t { kNone, kResidual, kNormed, kOutput, kSum };

enum class SubLayer : uint8_t { kAttention, kMlp };

// Rows of a segment that a hook is for: all; those of the text's first positions but not among the
// segment's last rows; or the segment's last rows (ReFT's prefix and suffix positions).
struct HookRows {
  enum class Kind : uint8_t { kAll, kFirst, kLast };
  Kind kind = Kind::kAll;
  int64_t num_first = 0;
  int64_t num_last = 0;
};

// Attention over a hook's ops instead of their sum (AdapterFusion: Pfeiffer et al. 2021):
//   f = sum over k of softmax_k(query . keys_k(input)) op_k(input),  query = map tap + bias
struct HookFusion {
  Tap query = Tap::kOutput;
  Dense query_map;  // no rows: the identity
  Bias query_bias;  // no values: none
  std::vector<Bottleneck> keys;
};

// An op after a sub-layer, mostly a bottleneck adapter (zoo sections 5.5 and 5.6). With f =
// op(input) + the sum of more(input), times the gate of the input where there is one:
//   h = weight (norm(f) + skip) + outside,  or weight norm(f + skip) + outside (norm_takes_skip)
// A hook that joins reads what the one before it read and adds its h to that one's. h takes o's
// place for the next hook; after the last one the stream becomes h + r, or h alone where
// adds_residual is false.
struct SubLayerHook {
  int64_t layer = 0;
  SubLayer sub_layer = SubLayer::kMlp;
  DeltaOp op;  // [hidden, hidden], as the others
  std::vector<DeltaOp> more;
  std::optional<HookFusion> fusion;
  Tap input = Tap::kSum;
  Tap skip = Tap::kOutput;
  Tap outside = Tap::kNone;
  LayerNormWeights norm;  // empty: none
  bool norm_takes_skip = false;
  bool adds_residual = true;
  bool joins = false;
  float weight = 1.0f;
  SegmentGate gate = {};
  HookRows rows = {};
};

// A sub-layer whose output counts for some tokens alone (CoDA: Lei et al. 2023), in the causal form
// of zoo section 7. With s = weight . n, n the token's own normed input:
//   o = sigmoid(s) o where s >= threshold, else 0
struct TokenRouter {
  int64_t layer = 0;
  SubLayer sub_layer = SubLayer::kMlp;
  std::vector<float> weight;  // [hidden]
  float threshold = 0.0f;
};

// An invertible adapter of embedded text (NICE: Dinh et al. 2015): with the row's halves x1 and x2,
//   x1 += first(x2), then x2 += second(x1)
struct EmbeddingCoupling {
  Bottleneck first;
  Bottleneck second;
};

// A rotary embedding in place of the base's (LongLoRA: Chen et al. 2023), and how long its contexts
// may be: as its configuration says, and as they are served.
struct OwnRope {
  RopeSpec rope;
  int64_t max_position = 0;
  int64_t max_context = 0;
};

// Memory of tensors that a lowering computed. Addresses stay as the arena grows and moves.
class ProgramArena {
 public:
  std::span<const float> Keep(std::vector<float> values) {
    return floats_.emplace_back(std::move(values));
  }
  std::span<const int32_t> Keep(std::vector<int32_t> values) {
    return ints_.emplace_back(std::move(values));
  }
  std::span<const uint32_t> Keep(std::vector<uint32_t> values) {
    return words_.emplace_back(std::move(values));
  }
  // fp32, row-major.
  TensorView KeepMatrix(std::vector<float> values, int64_t rows, int64_t cols) {
    return {Keep(std::move(values)).data(), DType::kF32, rows, cols};
  }
  // What the other holds stays where it is.
  void Absorb(ProgramArena other) {
    for (auto& values : other.floats_) floats_.push_back(std::move(values));
    for (auto& values : other.ints_) ints_.push_back(std::move(values));
    for (auto& values : other.words_) words_.push_back(std::move(values));
  }

 private:
  std::deque<std::vector<float>> floats_;
  std::deque<std::vector<int32_t>> ints_;
  std::deque<std::vector<uint32_t>> words_;
};

struct AdapterProgram {
  AdapterProgram() = default;
  AdapterProgram(AdapterProgram&&) = default;
  AdapterProgram& operator=(AdapterProgram&&) = default;

  std::string family;       // as the family table calls it: "LORA"
  std::vector<SiteOp> ops;  // in the order they run within a stage of a site
  std::vector<Mixture> mixtures;
  std::vector<DeltaOp> embedding_ops;
  std::vector<Bottleneck> stream_ops;  // of the stream that enters the first layer: x += op(x)
  std::vector<NormReplacement> norms;
  std::vector<TokenRouter> routers;  // before the hooks of the same sub-layer
  std::vector<SubLayerHook> hooks;   // in the order they run
  std::optional<SoftPromptTensors> soft_prompt;
  std::vector<GatedPrefixTensors> gated_prefixes;
  std::vector<EmbeddingCoupling> couplings;  // after positions are added
  std::vector<int32_t> invocation_tokens;    // activated adapters only
  std::optional<ScalingPassTensors> scaling_pass;
  std::optional<OwnRope> rope;
  // Some of it depends on a request's whole prompt (zoo's class E4): the prompt is computed in one
  // piece, each later token alone, and no cached prefix is used.
  bool reads_whole_prompt = false;
  bool reads_positions = false;  // some of it is for certain positions of the text
  bool read_base = false;        // some of it was computed from the base's weights
  ProgramArena arena;
};

}  // namespace polyad
