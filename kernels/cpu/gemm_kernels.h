#pragma once

// What an instruction set offers the products: one function per weight format, over a run of column
// panels. Plain data only, so that files compiled for wide instructions emit no shared inline code
// (see CMakeLists.txt).
//
// Layout of fp32 and bf16 panels. Columns (rows of W) go in panels of 32, the last one ragged and
// unpadded. A panel is a sequence of blocks of 32 inputs (the last one shorter); a block holds its
// tiles of 16 columns one after the other; a tile is [inputs][columns] of fp32, or [input
// pairs][columns][2] of bf16 (the pair is what bf16 dot instructions take, and 16 pairs x 16
// columns are one AMX tile). An odd depth is padded with one zero.
//
// Panels of integer codes are laid out in grouped_panel.h; they meet rows quantised to int8.

#include <cstdint>

// Unrolls the loop that follows, so that arrays of sums become registers.
#if defined(__clang__)
#define POLYAD_UNROLL _Pragma("unroll")
#else
#define POLYAD_UNROLL _Pragma("GCC unroll 16")
#endif

namespace polyad::cpu {

inline constexpr int64_t kPanelColumns = 32;
inline constexpr int64_t kTileColumns = 16;
inline constexpr int64_t kDepthBlock = 32;

// Rows quantised to int8 in blocks of 32: x ~ scale * q. Sums are of q.
struct QuantizedRows {
  const int8_t* q = nullptr;          // [rows, depth]
  const float* scale = nullptr;       // [rows, depth / 32]
  const int32_t* sum = nullptr;       // [rows, depth / 32]
  const int32_t* half_sum = nullptr;  // [rows, depth / 16]
};

// What the integer codes of one panel stand for: w = scale (code - zero) + minimum. Codes less the
// zero fit a signed byte, or the zero is 0.
struct IntegerScaling {
  const char* scales = nullptr;  // [groups][32 columns] of fp32 or f16
  const char* minima = nullptr;  // likewise, or null
  int64_t group_bytes = 0;       // from one group's numbers to the next's
  bool f16 = false;
  int64_t blocks_per_group = 1;  // of 32 inputs; 0: two groups of 16 inputs a block
  int32_t zero = 0;
};

struct MemoryRange {
  const char* begin = nullptr;
  const char* end = nullptr;
};

// What the thread will read next, in order, across the small products to come. A kernel that takes
// part fetches as many bytes into L2 as it reads and moves `at` on, so that the distance stays and
// the memory works on while one product ends and the next begins.
struct FetchAhead {
  const char* at = nullptr;
  const char* end = nullptr;
  const MemoryRange* next = nullptr;
  int64_t num_next = 0;
};

// Where to fetch from next, and `bytes` further on for the time after.
static inline const char* Advance(FetchAhead* ahead, int64_t bytes) {
  if (ahead->at >= ahead->end && ahead->num_next > 0) {
    ahead->at = ahead->next->begin;
    ahead->end = ahead->next->end;
    ++ahead->next;
    --ahead->num_next;
  }
  const char* at = ahead->at;
  if (at < ahead->end) ahead->at += bytes;
  return at;
}

// y[r][c] (+)= sum_k x[r][k] w[k][c] + bias[c] for all rows and the columns of a run of panels.
struct PanelTask {
  const void* x = nullptr;  // f32 or bf16 rows, as GemmKernels says; null for integer codes
  int64_t x_stride = 0;     // elements
  int64_t x_bytes = 4;      // per element
  QuantizedRows quantized;  // of the first row
  int64_t rows = 0;
  int64_t depth = 0;
  const char* panels = nullptr;  // the first panel
  int64_t panel_bytes = 0;       // from one full panel to the next
  int64_t columns = 0;           // in all panels of the run
  IntegerScaling scaling;        // of integer codes, which come a panel at a time
  const float* bias = nullptr;   // of the first column, or null
  bool accumulate = false;
  float* y = nullptr;  // first row, first column
  int64_t y_stride = 0;
  FetchAhead* ahead = nullptr;  // or null: a kernel then fetches ahead in its own panels
};

using PanelKernel = void (*)(const PanelTask&);
// One bf16 row to blocks of int8: scale = max |x| / 127, q = x / scale to the nearest integer (ties
// to even), sum of a block's q. Blocks under 1e-35 count as zeros; a block with infinity or NaN
// makes its scale NaN.
using QuantizeKernel = void (*)(const uint16_t* x, int64_t depth, int8_t* q, float* scale,
                                int32_t* sum);

struct GemmKernels {
  PanelKernel f32 = nullptr;
  PanelKernel bf16 = nullptr;
  PanelKernel integers8 = nullptr;
  PanelKernel integers4 = nullptr;
  QuantizeKernel quantize = nullptr;
  bool bf16_takes_f32_rows = false;  // x widened to fp32 beforehand
  int64_t bf16_depth_multiple = 2;   // x must be readable and zero up to this multiple of depth
};

// bf16 tile arithmetic without tiles (gemm_amx_few.cc): 1 or 2 rows of at most kAmxFewRowsDepth
// inputs.
inline constexpr int64_t kAmxFewRows = 2;
inline constexpr int64_t kAmxFewRowsDepth = 4096;
void AmxFewRowsBf16(const PanelTask& task);
// A sum of one block that only goes onto y starts from y (an adapter's B): y + (even + odd), no
// tile leaves twice.
static inline bool StartsOnSink(const PanelTask& task) {
  return task.accumulate && task.bias == nullptr && task.depth <= kDepthBlock;
}

void AmxIntegers8(const PanelTask& task);
void AmxIntegers4(const PanelTask& task);
void Avx2Integers8(const PanelTask& task);
void Avx2Integers4(const PanelTask& task);
void ScalarQuantizeRow(const uint16_t* x, int64_t depth, int8_t* q, float* scale, int32_t* sum);
void Avx2QuantizeRow(const uint16_t* x, int64_t depth, int8_t* q, float* scale, int32_t* sum);
void Avx512QuantizeRow(const uint16_t* x, int64_t depth, int8_t* q, float* scale, int32_t* sum);
void Avx512Integers8(const PanelTask& task);
void Avx512Integers4(const PanelTask& task);

GemmKernels ScalarGemmKernels();
GemmKernels Avx2GemmKernels();
GemmKernels Avx512GemmKernels(bool fast_bf16_dot);
GemmKernels AmxGemmKernels();

}  // namespace polyad::cpu
