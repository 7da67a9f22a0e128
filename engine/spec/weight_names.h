#pragma once

// How each logical weight of a model is called and laid out in each container: a table of names for
// every architecture, for Hugging Face files and for GGUF. WeightPlan lists every weight a spec
// needs with its [out, in] shape, so that a model is checked whole before a byte of it is packed.
// Sources: transformers 5.19 modeling files; gguf 0.19 constants; llama.cpp's converter for the two
// layout rules below.

#include <cstdint>
#include <string>
#include <vector>

#include "engine/spec/model_spec.h"
#include "engine/spec/sites.h"

namespace polyad {

enum class WeightKind {
  kEmbed,
  kPositions,
  kFinalNorm,
  kFinalNormBias,
  kHead,  // of the model: layer is -1
  kAttnNorm,
  kAttnNormBias,
  kMlpNorm,
  kMlpNormBias,
  kQNorm,
  kKNorm,  // vectors of a layer
  kQ,
  kK,
  kV,
  kQkv,
  kO,
  kGate,
  kUp,
  kDown,
  kFcIn,
  kFcOut,  // matrices of a layer, [out, in]
  kQBias,
  kKBias,
  kVBias,
  kQkvBias,
  kOBias,
  kGateBias,
  kUpBias,
  kDownBias,
  kFcInBias,
  kFcOutBias,
};

enum class WeightFormat { kHuggingFace, kGguf };

// What must be done to the stored tensor to have [out, in] with half-split rotary pairs.
enum class WeightLayout {
  kAsStored,
  kTransposed,       // Hugging Face GPT-2 Conv1D: stored [in, out]
  kInterleavedRows,  // GGUF llama: rows of q and k are stored for interleaved rotary pairs
};

struct WeightEntry {
  WeightKind kind = WeightKind::kEmbed;
  int64_t layer = -1;
  std::string tensor_name;
  WeightLayout layout = WeightLayout::kAsStored;
  std::vector<int64_t> shape;  // logical: [out, in] or [n]
  int64_t rotary_heads = 0;    // heads whose rows are interleaved (kInterleavedRows)
};

// Every weight the spec calls for, in the order layers run. A tied head is not listed.
std::vector<WeightEntry> WeightPlan(const ModelSpec& spec, WeightFormat format);

// The weights at a linear site. A head and an embedding have no bias: both are the matrix then.
struct SiteWeights {
  WeightKind matrix = WeightKind::kEmbed;
  WeightKind bias = WeightKind::kEmbed;
};
SiteWeights WeightsOf(Site site);

// Tensors that such files may also hold and that say nothing: causal masks, rotary buffers, a
// stored copy of a tied head.
bool IsIgnorableTensor(const ModelSpec& spec, const std::string& tensor_name);

}  // namespace polyad
