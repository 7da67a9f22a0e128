#pragma once

// A directory's quantised matrices under the names of what they quantise: a source that lists
// "<module>.weight" [out, in] in place of the several tensors a library stores for it, and reads it
// as grouped rows (kernels/api/grouped_rows.h) without rounding. Shapes and types of all parts are
// checked when it opens; what only their contents show (an index out of range, a scale that is no
// number) when a weight is read. Other tensors pass through. Thread-safe once open.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/io/tensor_source.h"
#include "engine/spec/quantization_config.h"
#include "kernels/api/grouped_rows.h"

namespace polyad {

// One matrix as its library stores it.
struct QuantizedModule {
  std::string name;  // "model.layers.0.mlp.up_proj"
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<std::string> parts;  // the stored tensors that make it up
};

// How one library's tensors become a matrix. `Describe` checks the parts of module.name and fills
// the rest; `Read` reads what Describe accepted.
struct QuantizationScheme {
  std::string suffix;  // of the tensor that every quantised module has
  Status (*describe)(const TensorSource& stored, const QuantizationConfig& config,
                     QuantizedModule& module) = nullptr;
  StatusOr<GroupedRows> (*read)(const TensorSource& stored, const QuantizationConfig& config,
                                const QuantizedModule& module) = nullptr;
};

QuantizationScheme BitsAndBytesScheme();
QuantizationScheme GptqScheme();
QuantizationScheme AwqScheme();
QuantizationScheme CompressedTensorsScheme();
QuantizationScheme PolyadScheme();

StatusOr<std::unique_ptr<TensorSource>> OpenQuantizedSource(std::unique_ptr<TensorSource> stored,
                                                            const QuantizationConfig& config);

// --- what the schemes share ---

// The tensor's info; refuses one that is missing, of another shape (where given) or of none of
// these types.
StatusOr<const TensorInfo*> NeedTensor(const TensorSource& stored, const std::string& name,
                                       std::initializer_list<DType> types,
                                       const std::vector<int64_t>& shape);
// The numbers of a scale tensor; refuses one that is not finite.
StatusOr<std::vector<float>> ReadScales(const TensorSource& stored, const std::string& name);
// Its elements as stored, by their bytes.
StatusOr<std::vector<uint32_t>> ReadWords(const TensorSource& stored, const std::string& name);
// g_idx: the group of each input, all below num_groups. Leaves group_of empty where groups are
// runs.
Status ReadGroupIndex(const TensorSource& stored, const std::string& name, GroupedRows& made);
// [groups, rows] as libraries store it to [rows, groups].
std::vector<float> Transposed(const std::vector<float>& stored, int64_t groups, int64_t rows);
// One constant in place of zero points that are all the same.
void FoldZeros(GroupedRows& made);
// Inputs a group: `group_size`, or the whole row for -1.
int64_t GroupSizeOf(const QuantizationConfig& config, int64_t cols);

}  // namespace polyad
