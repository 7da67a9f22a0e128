#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/cpu/gemm_kernels.h"
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
float WeightAt(const char* at, uint16_t /*type*/) {
  uint16_t value = 0;
  std::memcpy(&value, at, sizeof(value));
  return FromBf16(value);
}
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

struct BlockFormat {
  int64_t integers;  // bytes per panel block
  bool nibbles;
  bool minimum;
  int32_t offset;  // subtracted from every stored integer
};

int32_t BlockDot(const BlockFormat& format, const uint8_t* integers, const int8_t* q) {
  int32_t dot = 0;
  if (format.nibbles) {
    for (int64_t i = 0; i < 16; ++i) {
      const int32_t byte = integers[i / 4 * kTileColumns * 4 + i % 4];
      dot += (byte & 15) * q[i] + (byte >> 4) * q[i + 16];
    }
    return dot;
  }
  for (int64_t i = 0; i < 32; ++i) dot += integers[i / 4 * kTileColumns * 4 + i % 4] * q[i];
  return dot;
}

void BlockPanels(const PanelTask& task, const BlockFormat& format) {
  const int64_t scales = kPanelColumns * 2;
  const int64_t stride = format.integers + scales * (format.minimum ? 2 : 1);
  const int64_t num_blocks = task.depth / kDepthBlock;
  for (int64_t column = 0; column < task.columns; ++column) {
    const char* panel = task.panels + column / kPanelColumns * task.panel_bytes;
    const int64_t lane = column % kPanelColumns;
    const int64_t at = lane / kTileColumns * (format.integers / 2) + lane % kTileColumns * 4;
    for (int64_t row = 0; row < task.rows; ++row) {
      const QuantizedRows& x = task.quantized;
      float sum = 0.0f;
      for (int64_t b = 0; b < num_blocks; ++b) {
        const char* block = panel + b * stride;
        uint16_t bits[2] = {0, 0};
        std::memcpy(&bits[0], block + format.integers + lane * 2, 2);
        if (format.minimum) std::memcpy(&bits[1], block + format.integers + scales + lane * 2, 2);
        const int64_t i = row * num_blocks + b;
        const int32_t dot = BlockDot(format, reinterpret_cast<const uint8_t*>(block) + at,
                                     x.q + row * task.depth + b * kDepthBlock) -
                            format.offset * x.sum[i];
        sum += static_cast<float>(dot) * (x.scale[i] * FromF16(bits[0]));
        if (format.minimum) sum += FromF16(bits[1]) * (x.scale[i] * static_cast<float>(x.sum[i]));
      }
      Store(task, row, column, sum);
    }
  }
}

void F32Panels(const PanelTask& task) { FloatPanels<float, 1>(task); }
void Bf16Panels(const PanelTask& task) { FloatPanels<uint16_t, 2>(task); }
void Q80Panels(const PanelTask& task) { BlockPanels(task, {1024, false, false, 128}); }
void Q40Panels(const PanelTask& task) { BlockPanels(task, {512, true, false, 8}); }
void Q41Panels(const PanelTask& task) { BlockPanels(task, {512, true, true, 0}); }

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
  kernels.q8_0 = Q80Panels;
  kernels.q4_0 = Q40Panels;
  kernels.q4_1 = Q41Panels;
  kernels.quantize = ScalarQuantizeRow;
  kernels.bf16_depth_multiple = 1;
  return kernels;
}

}  // namespace polyad::cpu
