#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/grouped_panel.h"
#include "kernels/cpu/number_format.h"

// y[r][c] (+)= sum_k x[r][k] w[k][c] in plain C++: the path for machines without AVX2, and the
// layout's plain statement.

namespace polyad::cpu {
namespace {

float WeightAt(const char* at, float /*type*/) {
  float value = 0;
  std::memcpy(&value, at, sizeof(value));
  return value;
}
uint16_t WordAt(const char* at) {
  uint16_t value = 0;
  std::memcpy(&value, at, sizeof(value));
  return value;
}
float WeightAt(const char* at, uint16_t /*type*/) { return FromBf16(WordAt(at)); }
float InputAt(const void* x, int64_t i, float /*type*/) { return static_cast<const float*>(x)[i]; }
float InputAt(const void* x, int64_t i, uint16_t /*type*/) {
  return FromBf16(static_cast<const uint16_t*>(x)[i]);
}

void Store(const PanelTask& task, int64_t row, int64_t column, float sum) {
  if (task.bias != nullptr) sum += task.bias[column];
  float* y = task.y + row * task.y_stride + column;
  *y = task.accumulate ? *y + sum : sum;
}

// Group: 1 for fp32, 2 for bf16 pairs. One tile of up to 16 columns, one row: sums run over k
// alone.
template <typename Element, int64_t Group>
void SumTile(const PanelTask& task, const char* panel, int64_t row, int64_t tile, int64_t columns,
             float* sums) {
  const int64_t width = columns - tile < kTileColumns ? columns - tile : kTileColumns;
  for (int64_t c = 0; c < width; ++c) sums[c] = 0.0f;
  for (int64_t block = 0; block < task.depth; block += kDepthBlock) {
    const int64_t depth = task.depth - block < kDepthBlock ? task.depth - block : kDepthBlock;
    const int64_t padded = (depth + Group - 1) / Group * Group;
    const char* weights =
        panel + (block * columns + tile * padded) * static_cast<int64_t>(sizeof(Element));
    for (int64_t k = 0; k < depth; ++k) {
      const float x = InputAt(task.x, row * task.x_stride + block + k, Element{});
      const char* at =
          weights + (k / Group * width * Group + k % Group) * static_cast<int64_t>(sizeof(Element));
      for (int64_t c = 0; c < width; ++c) {
        sums[c] += x * WeightAt(at + c * Group * static_cast<int64_t>(sizeof(Element)), Element{});
      }
    }
  }
}

template <typename Element, int64_t Group>
void FloatPanels(const PanelTask& task) {
  float sums[kTileColumns];
  for (int64_t first = 0; first < task.columns; first += kPanelColumns) {
    const char* panel = task.panels + first / kPanelColumns * task.panel_bytes;
    const int64_t columns =
        task.columns - first < kPanelColumns ? task.columns - first : kPanelColumns;
    for (int64_t row = 0; row < task.rows; ++row) {
      for (int64_t tile = 0; tile < columns; tile += kTileColumns) {
        SumTile<Element, Group>(task, panel, row, tile, columns, sums);
        for (int64_t c = 0; c < kTileColumns && tile + c < columns; ++c) {
          Store(task, row, first + tile + c, sums[c]);
        }
      }
    }
  }
}

int32_t CodeAt(const char* codes, int bits, int64_t k, int64_t column) {
  const CodePlace place = PlaceOfCode(bits, k, column);
  uint32_t word = 0;
  std::memcpy(&word, codes + place.word * 4, sizeof(word));
  return static_cast<int32_t>((word >> place.shift) & ((1u << bits) - 1));
}

// One group's part of a block: inputs [first, first + count) of a row, q from its first input on.
struct GroupInputs {
  const int8_t* q;
  int64_t first;
  int64_t count;
  int32_t sum;
  float scale;
};

float AddGroup(const PanelTask& task, int bits, const GroupInputs& x, int64_t column, float sum) {
  const IntegerScaling& scaling = task.scaling;
  int32_t dot = -scaling.zero * x.sum;
  for (int64_t k = x.first; k < x.first + x.count; ++k) {
    dot += CodeAt(task.panels, bits, k, column) * x.q[k];
  }
  const int64_t group = scaling.blocks_per_group == 0
                            ? x.first / x.count
                            : x.first / kDepthBlock / scaling.blocks_per_group;
  const auto number = [&](const char* numbers) {
    const char* at = numbers + group * scaling.group_bytes;
    return scaling.f16 ? FromF16(WordAt(at + column * 2)) : WeightAt(at + column * 4, float{});
  };
  sum += static_cast<float>(dot) * (x.scale * number(scaling.scales));
  if (scaling.minima != nullptr) {
    sum += number(scaling.minima) * (x.scale * static_cast<float>(x.sum));
  }
  return sum;
}

void Integers(const PanelTask& task, int bits) {
  const QuantizedRows& x = task.quantized;
  const bool halves = task.scaling.blocks_per_group == 0;
  const int64_t count = halves ? kDepthBlock / 2 : kDepthBlock;
  const int32_t* sums = halves ? x.half_sum : x.sum;
  for (int64_t column = 0; column < task.columns; ++column) {
    for (int64_t row = 0; row < task.rows; ++row) {
      const int8_t* q = x.q + row * task.depth;
      float sum = 0.0f;
      for (int64_t first = 0; first < task.depth; first += count) {
        const int64_t at = row * task.depth + first;
        sum = AddGroup(task, bits, {q, first, count, sums[at / count], x.scale[at / kDepthBlock]},
                       column, sum);
      }
      Store(task, row, column, sum);
    }
  }
}

void F32Panels(const PanelTask& task) { FloatPanels<float, 1>(task); }
void Bf16Panels(const PanelTask& task) { FloatPanels<uint16_t, 2>(task); }
void Integers8(const PanelTask& task) { Integers(task, 8); }
void Integers4(const PanelTask& task) { Integers(task, 4); }

}  // namespace

void ScalarQuantizeRow(const uint16_t* x, int64_t depth, int8_t* q, float* scale, int32_t* sum) {
  for (int64_t k = 0; k < depth; k += kDepthBlock, x += kDepthBlock, q += kDepthBlock) {
    float values[kDepthBlock];
    uint32_t largest = 0;  // as magnitude bits: order of bits is order of magnitudes
    for (int64_t i = 0; i < kDepthBlock; ++i) {
      values[i] = FromBf16(x[i]);
      largest = std::max<uint32_t>(largest, x[i] & 0x7fff);
    }
    const float peak = FromBf16(static_cast<uint16_t>(largest));
    const bool finite = peak <= std::numeric_limits<float>::max();
    // Blocks too small to invert count as zeros; a block with infinity or NaN makes the row NaN.
    const float inverse = finite && peak > 1e-35f ? 127.0f / peak : 0.0f;
    if (!finite) std::fill(values, values + kDepthBlock, 0.0f);
    int32_t total = 0;
    for (int64_t i = 0; i < kDepthBlock; ++i) {
      // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, ties to even.
      const float rounded = (values[i] * inverse + 12582912.0f) - 12582912.0f;
      const auto integer = static_cast<int32_t>(rounded);
      q[i] = static_cast<int8_t>(integer);
      total += integer;
    }
    *scale++ = finite ? peak / 127.0f : std::numeric_limits<float>::quiet_NaN();
    *sum++ = total;
  }
}

GemmKernels ScalarGemmKernels() {
  GemmKernels kernels;
  kernels.f32 = F32Panels;
  kernels.bf16 = Bf16Panels;
  kernels.integers8 = Integers8;
  kernels.integers4 = Integers4;
  kernels.quantize = ScalarQuantizeRow;
  kernels.bf16_depth_multiple = 1;
  return kernels;
}

}  // namespace polyad::cpu
