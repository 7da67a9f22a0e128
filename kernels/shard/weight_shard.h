#pragma once

// Which part of a matrix a rank of a tensor-parallel group has (Megatron-LM: Shoeybi et al. 2019):
// some outputs of a layer whose input every rank has whole ("column parallel" there), or some
// inputs of a layer whose input is what the ranks have of such outputs ("row parallel"). Pure; the
// memory of a part is its own.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/tensor_view.h"

namespace polyad {

enum class ShardAxis : uint8_t { kOutputs, kInputs };

struct Slice {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// Part `rank` of `size` of `count` numbers: whole units (a head, a quantised group), as many as the
// others' or one more. Empty where there are fewer units than ranks.
Slice SliceOf(int64_t count, int64_t unit, int rank, int size);

// Rows of a matrix in a plain dtype, over its own memory.
TensorView RowsOfMatrix(const TensorView& matrix, Slice rows);

// A part of a matrix, copied.
class WeightShard {
 public:
  // Outputs or inputs [slice.begin, slice.end). INVALID_ARGUMENT: a slice of inputs that cuts
  // through a quantised group or a block of its format.
  static absl::StatusOr<WeightShard> Of(const TensorView& weight, ShardAxis axis, Slice slice);
  // Matrices of f32, f16 or bf16, as f32: row r times factors[r].
  static absl::StatusOr<WeightShard> ScaledRows(const TensorView& weight,
                                                std::span<const float> factors);

  TensorView view() const;

 private:
  DType dtype_ = DType::kF32;
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  std::vector<char> bytes_;
  std::shared_ptr<const GroupedRows> grouped_;
};

}  // namespace polyad
