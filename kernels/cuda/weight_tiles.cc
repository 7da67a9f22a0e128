#include "kernels/cuda/weight_tiles.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/api/check.h"
#include "kernels/api/half.h"
#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/fragment_matrix.h"
#include "kernels/simt/simt.h"

namespace polyad::cuda {
namespace {

constexpr int64_t kBlockElements = 32;  // of a GGUF block

float F16At(const unsigned char* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return FromF16(bits);
}

float NumberAt(const TensorView& weight, int64_t row, int64_t col) {
  const auto* bytes = static_cast<const unsigned char*>(weight.data) +
                      row * RowBytes(weight.dtype, weight.cols) +
                      col * InfoOf(weight.dtype).block_bytes;
  switch (weight.dtype) {
    case DType::kF16:
      return F16At(bytes);
    case DType::kBF16: {
      simt::Bf16 value;
      std::memcpy(&value, bytes, sizeof(value));
      return simt::ToFloat(value);
    }
    default: {
      KERNEL_CHECK(weight.dtype == DType::kF32, "a matrix of numbers");
      float value;
      std::memcpy(&value, bytes, sizeof(value));
      return value;
    }
  }
}

// GGUF's blocks as rows of codes, so that there is one way from codes to tiles.
GroupedRows GroupsOf(const TensorView& weight) {
  GroupedRows made = MakeGroupedRows(weight.rows, weight.cols, kBlockElements);
  const bool wide = weight.dtype == DType::kQ8_0;
  const bool has_minimum = weight.dtype == DType::kQ4_1;
  made.bits = wide ? 8 : 4;
  made.zero = wide ? 128.0f : has_minimum ? 0.0f : 8.0f;
  const auto* bytes = static_cast<const unsigned char*>(weight.data);
  for (size_t block = 0; block < made.scales.size(); ++block) {
    made.scales[block] = F16At(bytes);
    if (has_minimum) made.minima.push_back(F16At(bytes + 2));
    const unsigned char* codes = bytes + (has_minimum ? 4 : 2);
    uint8_t* to = made.codes.data() + block * kBlockElements;
    for (int i = 0; i < kBlockElements; ++i) {
      to[i] = wide ? static_cast<uint8_t>(codes[i] ^ 0x80)  // i8 to a code whose zero is 128
                   : static_cast<uint8_t>(codes[i % 16] >> (i / 16 * 4) & 15);
    }
    bytes += InfoOf(weight.dtype).block_bytes;
  }
  return made;
}

WeightFormat FormatOf(const GroupedRows& weight) {
  if (weight.kind == CodeKind::kLevels) return WeightFormat::kLevels4;
  if (weight.kind == CodeKind::kFloat8) return WeightFormat::kFloat8;
  return weight.bits == 4 ? WeightFormat::kInteger4 : WeightFormat::kInteger8;
}

void PackNumbers(int64_t rows, int64_t cols, const std::function<float(int64_t, int64_t)>& number,
                 PackedTiles& packed) {
  const std::vector<uint16_t> elements = PackFragments(rows, cols, number);
  packed.tiles.resize(elements.size() / 2);
  std::memcpy(packed.tiles.data(), elements.data(), elements.size() * sizeof(uint16_t));
}

void PackGroups(const GroupedRows& weight, PackedTiles& packed) {
  WeightTiles& shape = packed.shape;
  shape.groups = static_cast<int32_t>(weight.num_groups);
  shape.group_tiles = static_cast<int32_t>(DivideUp(std::min(weight.group, weight.cols), kTile));
  const bool is_integer = weight.kind == CodeKind::kInteger;
  if (is_integer) shape.first_code = weight.bits == 4 ? 8 : 128;
  const auto size = static_cast<size_t>(RoundUp(weight.rows, kTile) * weight.num_groups);
  packed.scales.assign(size, 0.0f);
  packed.offsets.assign(size, 0.0f);
  for (size_t at = 0; at < static_cast<size_t>(weight.rows * weight.num_groups); ++at) {
    const float scale = weight.ScaleOf(at);
    packed.scales[at] = scale;
    if (!is_integer) continue;
    const float zero = weight.zeros.empty() ? weight.zero : weight.zeros[at];
    packed.offsets[at] = scale * (static_cast<float>(shape.first_code) - zero) +
                         (weight.minima.empty() ? 0.0f : weight.MinimumOf(at));
  }
  const bool none = std::all_of(packed.offsets.begin(), packed.offsets.end(),
                                [](float offset) { return offset == 0.0f; });
  if (none) packed.offsets.clear();
  for (int i = 0; weight.kind == CodeKind::kLevels && i < 32; ++i) {
    const float level = weight.levels[static_cast<size_t>(i % 16)];
    const simt::Bf16 high = simt::ToBf16(level);
    packed.levels.push_back(i < 16 ? high.bits : simt::ToBf16(level - simt::ToFloat(high)).bits);
  }
}

void PackCodes(const GroupedRows& weight, PackedTiles& packed) {
  const int bits = CodeBits(packed.shape.format);
  const int64_t col_tiles = DivideUp(weight.cols, kTile);
  const int64_t num_tiles = DivideUp(weight.rows, kTile) * col_tiles;
  packed.tiles.assign(static_cast<size_t>(num_tiles * kTileElements * bits / 32), 0);
  for (int64_t at = 0; at < num_tiles * kTileElements; ++at) {
    const int64_t tile = at / kTileElements;
    const auto in_tile = static_cast<int>(at % kTileElements);
    const TilePlace place =
        PlaceInFragment(in_tile / kFragmentElements, in_tile % kFragmentElements);
    const int64_t row = tile / col_tiles * kTile + place.row;
    const int64_t col = tile % col_tiles * kTile + place.col;
    if (row >= weight.rows || col >= weight.cols) continue;
    const uint32_t code = weight.codes[static_cast<size_t>(row * weight.cols + col)];
    packed.tiles[static_cast<size_t>(at * bits / 32)] |= code << (at * bits % 32);
  }
}

void PackGrouped(const GroupedRows& weight, PackedTiles& packed) {
  const bool are_tiles = weight.group % kTile == 0 || weight.num_groups == 1;
  if (!weight.group_of.empty() || !are_tiles) {
    std::vector<float> numbers(static_cast<size_t>(weight.rows * weight.cols));
    for (int64_t row = 0; row < weight.rows; ++row) {
      DequantizeRow(weight, row, numbers.data() + row * weight.cols);
    }
    PackNumbers(
        weight.rows, weight.cols,
        [&](int64_t row, int64_t col) {
          return numbers[static_cast<size_t>(row * weight.cols + col)];
        },
        packed);
    return;
  }
  packed.shape.format = FormatOf(weight);
  PackGroups(weight, packed);
  PackCodes(weight, packed);
}

}  // namespace

PackedTiles PackTiles(const TensorView& weight, float scale) {
  PackedTiles packed;
  packed.shape.out = static_cast<int32_t>(weight.rows);
  packed.shape.in = static_cast<int32_t>(weight.cols);
  if (weight.dtype == DType::kGrouped) {
    PackGrouped(*weight.grouped, packed);
  } else if (InfoOf(weight.dtype).block_elements > 1) {
    PackGrouped(GroupsOf(weight), packed);
  } else {
    PackNumbers(
        weight.rows, weight.cols,
        [&](int64_t row, int64_t col) { return scale * NumberAt(weight, row, col); }, packed);
  }
  return packed;
}

void RoundRow(const TensorView& weight, int64_t row, uint16_t* to) {
  if (weight.dtype == DType::kBF16) {
    const int64_t bytes = RowBytes(weight.dtype, weight.cols);
    std::memcpy(to, static_cast<const char*>(weight.data) + row * bytes,
                static_cast<size_t>(bytes));
    return;
  }
  for (int64_t col = 0; col < weight.cols; ++col) {
    to[col] = simt::ToBf16(NumberAt(weight, row, col)).bits;
  }
}

std::vector<float> NumbersOf(const TensorView& weight, float scale) {
  std::vector<float> numbers(static_cast<size_t>(weight.rows * weight.cols));
  if (weight.dtype == DType::kGrouped || InfoOf(weight.dtype).block_elements > 1) {
    GroupedRows decoded;
    if (weight.dtype != DType::kGrouped) decoded = GroupsOf(weight);
    const GroupedRows& groups = weight.dtype == DType::kGrouped ? *weight.grouped : decoded;
    for (int64_t row = 0; row < weight.rows; ++row) {
      DequantizeRow(groups, row, numbers.data() + row * weight.cols);
    }
  } else {
    for (size_t at = 0; at < numbers.size(); ++at) {
      const auto place = static_cast<int64_t>(at);
      numbers[at] = NumberAt(weight, place / weight.cols, place % weight.cols);
    }
  }
  for (float& number : numbers) number *= scale;
  return numbers;
}

std::vector<float> TransposedNumbersOf(const TensorView& weight) {
  const std::vector<float> numbers = NumbersOf(weight);
  std::vector<float> turned;
  turned.reserve(numbers.size());
  for (int64_t col = 0; col < weight.cols; ++col) {
    for (int64_t row = 0; row < weight.rows; ++row) {
      turned.push_back(numbers[static_cast<size_t>(row * weight.cols + col)]);
    }
  }
  return turned;
}

}  // namespace polyad::cuda
