#pragma once

// What adapters' ops ask of one instruction set, over plain pointers (row_kernels.h says how the
// levels are compiled). All arithmetic is fp32; each sum is taken in one order, whatever the number
// of rows.

#include <cstdint>

namespace polyad::cpu {

struct FetchAhead;  // gemm_kernels.h

// A sparse matrix in groups of 16 output rows of about equal length: entry e of a group is the e-th
// value of each of its rows, zero past a row's end.
struct SparseGroups {
  const float* values = nullptr;          // [entries][16]
  const uint16_t* columns = nullptr;      // [entries][16], or
  const int32_t* wide_columns = nullptr;  // where inputs are more than 65536
  const int64_t* group_begin = nullptr;   // [groups + 1], in entries
  const int32_t* outputs = nullptr;       // [num_outputs], 16 to a group, the last one shorter
  int64_t groups = 0;
  int64_t num_outputs = 0;
};

// The fp32 rows that an op reads and adds to.
struct SiteTask {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t in = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
  const float* weights = nullptr;  // [rows]
  int64_t rows = 0;
};
inline constexpr int64_t kSiteRows = 16;  // rows of one task at most

// How a level takes the bits of a 1-bit delta (sign_layout.h packs them so).
struct SignLevel {
  int64_t lanes = 0;                   // outputs looked up at once
  int64_t inputs_per_word = 0;         // 32, or fewer where a lookup takes 3 inputs
  int64_t table_entries_per_word = 0;  // of the tables that one row makes
};
inline constexpr int kSignPanel = 4;  // times the lanes: outputs of a panel

// Panels of [groups][group_words][outputs of the panel] words, lowest bit first, 1 is +1 and 0 -1.
struct SignPanels {
  const uint32_t* words = nullptr;
  const float* scale = nullptr;  // one, or per panel [groups][outputs of the panel]
  int64_t scale_stride = 0;      // 0 where there is one
  int64_t out = 0;
  int64_t groups = 1;
  int64_t group_words = 0;
  int64_t group_inputs = 0;
};

// One row: y += weight * the sum.
struct SignRow {
  const float* x = nullptr;  // [groups * group_inputs]
  float weight = 1.0f;
  float* y = nullptr;
  int64_t outputs = 0;
  FetchAhead* ahead = nullptr;  // or null: fetched ahead within the words
};

// sum_i u[i] m[i][j] for j < n: a row vector times a matrix whose rows are `stride` apart.
struct CombineTask {
  const float* u = nullptr;
  int64_t count = 0;
  const float* m = nullptr;
  int64_t stride = 0;
  int64_t n = 0;
};

struct SiteKernels {
  void (*widen)(const uint16_t* x, float* y, int64_t n) = nullptr;  // from bf16
  void (*narrow)(const float* x, uint16_t* y, int64_t n) = nullptr;
  void (*multiply)(const float* a, float* y, int64_t n) = nullptr;             // y *= a
  void (*add_scaled)(float w, const float* x, float* y, int64_t n) = nullptr;  // y += w x
  // y += w a x
  void (*add_product)(float w, const float* a, const float* x, float* y, int64_t n) = nullptr;
  // y = f y + g rot(y) for groups of two halves
  void (*rotate_pairs)(const float* f, const float* g, int64_t half, float* y, int64_t n) = nullptr;
  void (*combine)(const CombineTask& task, float* v) = nullptr;                // v = the sum
  void (*add_combined)(const CombineTask& task, float w, float* y) = nullptr;  // y += w the sum
  // y[row][output] += weight * sum; `transposed` is working memory of in * 16 floats.
  void (*add_sparse)(const SparseGroups& matrix, const SiteTask& task, float* transposed) = nullptr;
  SignLevel sign_level;
  // `tables` is working memory, 64-byte aligned: SignLevel::table_entries_per_word for each word of
  // an output. A row that holds an infinity or NaN gives NaN.
  void (*add_signs)(const SignPanels& signs, const SignRow& row, int32_t* tables) = nullptr;
};

}  // namespace polyad::cpu
