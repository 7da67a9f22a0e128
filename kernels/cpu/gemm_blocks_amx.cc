#include <immintrin.h>

#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/integer_forms.h"
#include "kernels/cpu/tile_config.h"

// Products of integer codes on int8 tiles for more than a handful of rows: a tile dot per group
// within a block of 32 inputs is the same exact integer as VNNI's, and dots are scaled and added in
// the same order, so the bits are those of gemm_blocks_avx512.cc, which keeps the few rows. Codes
// are unpacked to bytes and their zero is taken off once, for all rows. Tiles: 0-3 dots of four
// groups, 4-5 inputs, 6-7 codes.

namespace polyad::cpu {
namespace {

constexpr int64_t kRows = 16;
constexpr int64_t kFewestRows = 5;   // below, VNNI alone is faster (docs/notes/0001)
constexpr int64_t kMaxDepth = 4096;  // of the unpacked panel on the stack: 128 KiB
constexpr int64_t kBlockBytes = kPanelColumns * kDepthBlock;  // unpacked
constexpr int64_t kTileBytes = kBlockBytes / 2;
constexpr int64_t kPrefetchBytes = 2048;
constexpr int64_t kAtOnce = 4;  // groups in flight, to hide the latency of tiles

// For `rows` rows and groups of `depth` inputs.
void Configure(int64_t rows, int64_t depth) {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.rows[tile] = static_cast<uint8_t>(tile < 6 ? rows : depth / 4);
    config.row_bytes[tile] = static_cast<uint16_t>(tile == 4 || tile == 5 ? depth : 64);
  }
  LoadTileConfig(config);
}

void UnpackNibbles(const PanelTask& task, char* codes) {
  const __m512i low = _mm512_set1_epi8(15);
  const __m512i zero = _mm512_set1_epi8(static_cast<char>(task.scaling.zero));
  const int64_t bytes = task.depth * kPanelColumns / 2;
  for (int64_t i = 0; i < bytes; i += 64) {
    _mm_prefetch(task.panels + i + kPrefetchBytes, _MM_HINT_T1);
    const __m512i pair = _mm512_loadu_si512(task.panels + i);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low);
    _mm512_store_si512(codes + 2 * i, _mm512_sub_epi8(_mm512_and_si512(pair, low), zero));
    _mm512_store_si512(codes + 2 * i + 64, _mm512_sub_epi8(high, zero));
  }
}

void ShiftBytes(const PanelTask& task, char* codes) {
  const __m512i zero = _mm512_set1_epi8(static_cast<char>(task.scaling.zero));
  for (int64_t i = 0; i < task.depth * kPanelColumns; i += 64) {
    _mm_prefetch(task.panels + i + kPrefetchBytes, _MM_HINT_T1);
    _mm512_store_si512(codes + i, _mm512_sub_epi8(_mm512_loadu_si512(task.panels + i), zero));
  }
}

// How groups divide blocks, whether they have minima, and what their numbers are.
template <int kHalvesOfABlock, bool kWithMinima, bool kOfF16>
struct Groups {
  static constexpr int kHalves = kHalvesOfABlock;  // 2: a group for each half of a block
  static constexpr bool kMinima = kWithMinima;
  static constexpr int64_t kNumberBytes = kOfF16 ? 2 : 4;
  static constexpr int64_t kDepth = kDepthBlock / kHalves;  // of one dot
  static constexpr int64_t kBytes = kTileBytes / kHalves;   // of codes of one dot

  // Where the codes of dot `at` of a column tile lie in a panel.
  static int64_t CodesOf(int64_t at) { return at / kHalves * kBlockBytes + at % kHalves * kBytes; }

  static inline __m512 Load(const char* numbers) {
    if (!kOfF16) return _mm512_loadu_ps(numbers);
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(numbers)));
  }
};

// One row tile by one column tile.
struct TileSum {
  const int8_t* q;  // first row
  const float* scale[kRows];
  const int32_t* sum[kRows];  // one for each dot
  int64_t depth;
  const char* codes;       // of the column tile
  IntegerScaling scaling;  // of the column tile
};

template <typename Form>
inline void AddDots(const TileSum& tile, int64_t at, const int32_t* dots, __m512* sums) {
  const IntegerScaling& scaling = tile.scaling;
  const int64_t group =
      (Form::kHalves == 2 ? at : at / scaling.blocks_per_group) * scaling.group_bytes;
  const __m512 d = Form::Load(scaling.scales + group);
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const float x_scale = tile.scale[r][at / Form::kHalves];
    const __m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(dots + r * kTileColumns));
    sums[r] = _mm512_fmadd_ps(dot, _mm512_mul_ps(_mm512_set1_ps(x_scale), d), sums[r]);
    if (Form::kMinima) {
      const __m512 total = _mm512_set1_ps(x_scale * static_cast<float>(tile.sum[r][at]));
      sums[r] = _mm512_fmadd_ps(Form::Load(scaling.minima + group), total, sums[r]);
    }
  }
}

template <typename Form>
void SumTile(const TileSum& tile, __m512* out) {
  alignas(64) int32_t dots[kAtOnce][kRows * kTileColumns];
  __m512 sums[kRows];
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
  const int64_t num_dots = tile.depth / Form::kDepth;
  const auto stride = static_cast<size_t>(tile.depth);
  int64_t at = 0;
  for (; at + kAtOnce <= num_dots; at += kAtOnce) {
    const int8_t* q = tile.q + at * Form::kDepth;
    _tile_zero(0);
    _tile_loadd(4, q, stride);
    _tile_loadd(6, tile.codes + Form::CodesOf(at), 64);
    _tile_dpbssd(0, 4, 6);
    _tile_zero(1);
    _tile_loadd(5, q + Form::kDepth, stride);
    _tile_loadd(7, tile.codes + Form::CodesOf(at + 1), 64);
    _tile_dpbssd(1, 5, 7);
    _tile_zero(2);
    _tile_loadd(4, q + 2 * Form::kDepth, stride);
    _tile_loadd(6, tile.codes + Form::CodesOf(at + 2), 64);
    _tile_dpbssd(2, 4, 6);
    _tile_zero(3);
    _tile_loadd(5, q + 3 * Form::kDepth, stride);
    _tile_loadd(7, tile.codes + Form::CodesOf(at + 3), 64);
    _tile_dpbssd(3, 5, 7);
    _tile_stored(0, dots[0], 64);
    _tile_stored(1, dots[1], 64);
    _tile_stored(2, dots[2], 64);
    _tile_stored(3, dots[3], 64);
    FinishWrites();
    for (int64_t i = 0; i < kAtOnce; ++i) AddDots<Form>(tile, at + i, dots[i], sums);
  }
  for (; at < num_dots; ++at) {
    _tile_zero(0);
    _tile_loadd(4, tile.q + at * Form::kDepth, stride);
    _tile_loadd(6, tile.codes + Form::CodesOf(at), 64);
    _tile_dpbssd(0, 4, 6);
    _tile_stored(0, dots[0], 64);
    FinishWrites();
    AddDots<Form>(tile, at, dots[0], sums);
  }
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) out[r] = sums[r];
}

void StoreRow(const PanelTask& task, int64_t row, int64_t column, __mmask16 mask, __m512 sum) {
  float* y = task.y + row * task.y_stride + column;
  if (task.bias != nullptr)
    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, task.bias + column));
  if (task.accumulate) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sum);
  _mm512_mask_storeu_ps(y, mask, sum);
}

// Rows [row, row + rows) of the panel; rows <= 16. Absent rows repeat the last one and are not
// stored.
template <typename Form>
void SumRows(const PanelTask& task, const char* codes, int64_t row, int64_t rows) {
  const int64_t num_blocks = task.depth / kDepthBlock;
  const QuantizedRows& x = task.quantized;
  TileSum tile;
  tile.q = x.q + row * task.depth;
  tile.depth = task.depth;
  for (int64_t r = 0; r < kRows; ++r) {
    const int64_t from = (row + (r < rows ? r : rows - 1)) * num_blocks;
    tile.scale[r] = x.scale + from;
    tile.sum[r] = (Form::kHalves == 2 ? x.half_sum : x.sum) + from * Form::kHalves;
  }
  for (int64_t first = 0; first < task.columns; first += kTileColumns) {
    const int64_t left = task.columns - first;
    const __mmask16 mask =
        static_cast<__mmask16>((1u << (left < kTileColumns ? left : kTileColumns)) - 1);
    tile.codes = codes + first / kTileColumns * kTileBytes;
    tile.scaling = task.scaling;
    tile.scaling.scales += first * Form::kNumberBytes;
    if (Form::kMinima) tile.scaling.minima += first * Form::kNumberBytes;
    __m512 sums[kRows];
    SumTile<Form>(tile, sums);
    for (int64_t r = 0; r < rows; ++r) StoreRow(task, row + r, first, mask, sums[r]);
  }
}

template <typename Form>
void SumPanel(const PanelTask& task, const char* codes) {
  int64_t configured = 0;
  for (int64_t row = 0; row < task.rows; row += kRows) {
    const int64_t rows = task.rows - row < kRows ? task.rows - row : kRows;
    if (rows != configured) Configure(rows, Form::kDepth);
    configured = rows;
    SumRows<Form>(task, codes, row, rows);
  }
  _tile_release();
}

void SumForm(const PanelTask& task, const char* codes) {
  ForGroups<Groups>(task.scaling, [&](auto form) { SumPanel<decltype(form)>(task, codes); });
}

void SumNibbles(const PanelTask& task) {
  alignas(64) char codes[kMaxDepth * kPanelColumns];
  UnpackNibbles(task, codes);
  SumForm(task, codes);
}

void SumBytes(const PanelTask& task) {
  alignas(64) char codes[kMaxDepth * kPanelColumns];
  ShiftBytes(task, codes);
  SumForm(task, codes);
}

void Integers(const PanelTask& task, PanelKernel on_tiles, PanelKernel few_rows) {
  const int64_t tail = task.rows % kRows;
  const int64_t tiled = task.depth > kMaxDepth ? 0
                        : tail < kFewestRows   ? task.rows - tail
                                               : task.rows;
  if (tiled > 0) {
    PanelTask part = task;
    part.rows = tiled;
    on_tiles(part);
  }
  if (tiled == task.rows) return;
  PanelTask part = task;
  const int64_t num_blocks = task.depth / kDepthBlock;
  part.rows = task.rows - tiled;
  part.quantized.q += tiled * task.depth;
  part.quantized.scale += tiled * num_blocks;
  part.quantized.sum += tiled * num_blocks;
  part.quantized.half_sum += tiled * num_blocks * 2;
  part.y += tiled * task.y_stride;
  few_rows(part);
}

}  // namespace

void AmxIntegers8(const PanelTask& task) { Integers(task, SumBytes, Avx512Integers8); }
void AmxIntegers4(const PanelTask& task) { Integers(task, SumNibbles, Avx512Integers4); }

}  // namespace polyad::cpu
