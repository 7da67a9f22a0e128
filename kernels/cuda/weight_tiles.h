#pragma once

// A weight matrix W [out, in] as the product kernels read it: tiles of 16 x 16 in the order of
// fragment_matrix.h, along inputs first. kBf16 tiles hold bf16 numbers. The others hold codes, and
// for each row and group of inputs a scale and perhaps an offset:
//   w = scale * number(code) + offset
// where number(code), exact in bf16, is code - first_code (kInteger8, kInteger4), or an E4M3 number
// (kFloat8), or exact in two bf16 numbers (kLevels4: a table of 16 levels, each as a high part and
// the rest). So codes are multiplied as they are, and scales are applied to sums in fp32. A lane's
// eight codes of a tile lie together, the first in the lowest bits. Rows and columns that a tile
// has beyond the matrix are zeros. Made while packing, on any thread.

#include <cstdint>
#include <vector>

#include "kernels/api/tensor_view.h"

namespace polyad::simt {
struct Bf16;
}

namespace polyad::cuda {

enum class WeightFormat : uint8_t { kBf16, kInteger8, kInteger4, kLevels4, kFloat8 };
inline constexpr int kNumWeightFormats = 5;

constexpr int CodeBits(WeightFormat format) {
  if (format == WeightFormat::kBf16) return 16;
  return format == WeightFormat::kInteger4 || format == WeightFormat::kLevels4 ? 4 : 8;
}
template <WeightFormat kFormat>
inline constexpr int kCodeBits = CodeBits(kFormat);  // for kernels

// Device memory throughout, borrowed.
struct WeightTiles {
  WeightFormat format = WeightFormat::kBf16;
  int32_t out = 0;
  int32_t in = 0;
  int32_t first_code = 0;
  int32_t groups = 0;       // of a row
  int32_t group_tiles = 0;  // tiles of 16 inputs to a group
  const uint32_t* tiles = nullptr;
  const float* scales = nullptr;       // [out rounded up to 16, groups]; null for kBf16
  const float* offsets = nullptr;      // likewise; null: none
  const simt::Bf16* levels = nullptr;  // [32]: 16 high parts, 16 rests
};

// The memory that WeightTiles speak of, on the host.
struct PackedTiles {
  WeightTiles shape;  // its pointers are null
  std::vector<uint32_t> tiles;
  std::vector<float> scales;
  std::vector<float> offsets;
  std::vector<uint16_t> levels;
};

// `scale` multiplies all of a matrix of numbers and is 1 for one of codes. Codes stay codes where
// groups are runs of a multiple of 16 inputs; otherwise, and for matrices of f32 and f16, numbers
// are rounded to bf16.
PackedTiles PackTiles(const TensorView& weight, float scale = 1.0f);

// A row of a matrix of numbers (f32, f16 or bf16), rounded to bf16: the bits of weight.cols of
// them.
void RoundRow(const TensorView& weight, int64_t row, uint16_t* to);

// What a stored matrix of any kind stands for, times `scale`, row by row or column by column.
std::vector<float> NumbersOf(const TensorView& weight, float scale = 1.0f);
std::vector<float> TransposedNumbersOf(const TensorView& weight);

}  // namespace polyad::cuda
