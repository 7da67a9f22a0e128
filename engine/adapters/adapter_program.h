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
#include "engine/adapters/soft_prompt.h"
#include "engine/spec/sites.h"
#include "kernels/api/delta_op.h"

namespace polyad {

// When an op runs at its site (kernels/api/delta_op.h): before the base product, on its result,
// beside it, or on the site's finished output (y += op(y)).
enum class OpStage : uint8_t { kInput, kOutput, kDelta, kAfter };

struct SiteOp {
  SiteRef site;
  DeltaOp op;
  OpStage stage = OpStage::kDelta;
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

// An op after a sub-layer, mostly a bottleneck adapter (zoo section 5.5). With f = op(input):
//   h = norm(f) + skip,  or norm(f + skip) where norm_takes_skip
// h takes o's place for the next hook; after the last one the stream becomes h + r, or h alone
// where adds_residual is false.
struct SubLayerHook {
  int64_t layer = 0;
  SubLayer sub_layer = SubLayer::kMlp;
  DeltaOp op;  // [hidden, hidden]
  Tap input = Tap::kSum;
  Tap skip = Tap::kOutput;
  LayerNormWeights norm;  // empty: none
  bool norm_takes_skip = false;
  bool adds_residual = true;
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
  std::vector<DeltaOp> embedding_ops;
  std::vector<Bottleneck> stream_ops;  // of the stream that enters the first layer: x += op(x)
  std::vector<NormReplacement> norms;
  std::vector<SubLayerHook> hooks;  // in the order they run
  std::optional<SoftPromptTensors> soft_prompt;
  std::vector<GatedPrefixTensors> gated_prefixes;
  std::vector<int32_t> invocation_tokens;  // activated adapters only
  bool read_base = false;                  // some of it was computed from the base's weights
  ProgramArena arena;
};

}  // namespace polyad
