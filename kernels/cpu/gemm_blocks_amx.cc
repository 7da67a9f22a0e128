#include <immintrin.h>

#include "kernels/cpu/gemm_kernels.h"

// Block-quantised products on int8 tiles for more than a handful of rows: a tile dot per block of
// 32 inputs is the same exact integer as VNNI's, and blocks are scaled and added in the same order,
// so the bits are those of gemm_blocks_avx512.cc, which keeps the few rows. A panel is unpacked to
// int8 once and met by all rows. Tiles: 0-3 dots of four blocks, 4-5 inputs, 6-7 weights.

namespace polyad::cpu {
namespace {

constexpr int64_t kRows = 16;
constexpr int64_t kFewestRows = 5;   // below, VNNI alone is faster (docs/notes/0001)
constexpr int64_t kMaxDepth = 4096;  // of the unpacked panel on the stack: 128 KiB
constexpr int64_t kBlockBytes = kPanelColumns * kDepthBlock;  // unpacked
constexpr int64_t kTileBytes = kBlockBytes / 2;
constexpr int64_t kScaleBytes = kPanelColumns * 2;
constexpr int64_t kAtOnce = 4;  // blocks in flight, to hide the latency of tiles

struct alignas(64) TileConfig {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

// GCC's tile intrinsics are opaque assembly that names no memory: what they read must be written
// before.
inline void FinishWrites() { __asm__ volatile("" ::: "memory"); }

void Configure(int64_t rows) {
  TileConfig config;
  __builtin_memset(&config, 0, sizeof(config));
  config.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    config.rows[tile] = static_cast<uint8_t>(tile < 6 ? rows : kDepthBlock / 4);
    config.row_bytes[tile] = tile == 4 || tile == 5 ? kDepthBlock : 64;
  }
  FinishWrites();
  _tile_loadconfig(&config);
}

// A format: how a block of a panel becomes int8 [2 tiles][8 groups][16 columns][4], and what
// follows the integers.
struct Q80 {
  static constexpr int64_t kIntegers = 1024;
  static constexpr bool kMinimum = false;
  static inline void Unpack(const char* from, char* to) {
    for (int64_t i = 0; i < kIntegers; i += 64) {
      const __m512i bytes = _mm512_loadu_si512(from + i);
      _mm512_store_si512(to + i, _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)));
    }
  }
};

template <int kOffset>
struct Nibbles {
  static constexpr int64_t kIntegers = 512;
  static constexpr bool kMinimum = kOffset == 0;
  static inline void Unpack(const char* from, char* to) {
    const __m512i low = _mm512_set1_epi8(15);
    const __m512i offset = _mm512_set1_epi8(kOffset);
    for (int64_t tile = 0; tile < 2; ++tile, from += kTileBytes / 2, to += kTileBytes) {
      for (int64_t i = 0; i < kTileBytes / 2; i += 64) {
        const __m512i bytes = _mm512_loadu_si512(from + i);
        const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
        _mm512_store_si512(to + i, _mm512_sub_epi8(_mm512_and_si512(bytes, low), offset));
        _mm512_store_si512(to + kTileBytes / 2 + i, _mm512_sub_epi8(high, offset));
      }
    }
  }
};
using Q40 = Nibbles<8>;
using Q41 = Nibbles<0>;

template <typename Format>
constexpr int64_t StrideOf() {
  return Format::kIntegers + kScaleBytes * (Format::kMinimum ? 2 : 1);
}

template <typename Format>
void UnpackPanel(const char* panel, int64_t num_blocks, char* integers) {
  for (int64_t block = 0; block < num_blocks;
       ++block, panel += StrideOf<Format>(), integers += kBlockBytes) {
    for (int64_t line = 0; line < StrideOf<Format>(); line += 64) {
      _mm_prefetch(panel + 2048 + line, _MM_HINT_T1);
    }
    Format::Unpack(panel, integers);
  }
}

inline __m512 LoadScales(const char* at) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

// One row tile by one column tile.
struct TileSum {
  const int8_t* q;  // first row
  const float* scale[kRows];
  const int32_t* sum[kRows];
  int64_t depth;
  const char* integers;  // of the column tile
  const char* scales;    // of the column tile in the packed panel
};

template <typename Format>
inline void AddBlock(const TileSum& tile, int64_t block, const int32_t* dots, __m512* sums) {
  const char* scales = tile.scales + block * StrideOf<Format>();
  const __m512 d = LoadScales(scales);
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const float x_scale = tile.scale[r][block];
    const __m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(dots + r * kTileColumns));
    sums[r] = _mm512_fmadd_ps(dot, _mm512_mul_ps(_mm512_set1_ps(x_scale), d), sums[r]);
    if (Format::kMinimum) {
      const __m512 total = _mm512_set1_ps(x_scale * static_cast<float>(tile.sum[r][block]));
      sums[r] = _mm512_fmadd_ps(LoadScales(scales + kScaleBytes), total, sums[r]);
    }
  }
}

template <typename Format>
void SumTile(const TileSum& tile, __m512* out) {
  alignas(64) int32_t dots[kAtOnce][kRows * kTileColumns];
  __m512 sums[kRows];
  POLYAD_UNROLL
  for (int r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
  const int64_t num_blocks = tile.depth / kDepthBlock;
  const auto stride = static_cast<size_t>(tile.depth);
  int64_t block = 0;
  for (; block + kAtOnce <= num_blocks; block += kAtOnce) {
    const int8_t* q = tile.q + block * kDepthBlock;
    const char* w = tile.integers + block * kBlockBytes;
    _tile_zero(0);
    _tile_loadd(4, q, stride);
    _tile_loadd(6, w, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_zero(1);
    _tile_loadd(5, q + kDepthBlock, stride);
    _tile_loadd(7, w + kBlockBytes, 64);
    _tile_dpbssd(1, 5, 7);
    _tile_zero(2);
    _tile_loadd(4, q + 2 * kDepthBlock, stride);
    _tile_loadd(6, w + 2 * kBlockBytes, 64);
    _tile_dpbssd(2, 4, 6);
    _tile_zero(3);
    _tile_loadd(5, q + 3 * kDepthBlock, stride);
    _tile_loadd(7, w + 3 * kBlockBytes, 64);
    _tile_dpbssd(3, 5, 7);
    _tile_stored(0, dots[0], 64);
    _tile_stored(1, dots[1], 64);
    _tile_stored(2, dots[2], 64);
    _tile_stored(3, dots[3], 64);
    FinishWrites();
    for (int64_t i = 0; i < kAtOnce; ++i) AddBlock<Format>(tile, block + i, dots[i], sums);
  }
  for (; block < num_blocks; ++block) {
    _tile_zero(0);
    _tile_loadd(4, tile.q + block * kDepthBlock, stride);
    _tile_loadd(6, tile.integers + block * kBlockBytes, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_stored(0, dots[0], 64);
    FinishWrites();
    AddBlock<Format>(tile, block, dots[0], sums);
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

// Rows [row, row + rows) of one unpacked panel; rows <= 16. Absent rows repeat the last one and are
// not stored.
template <typename Format>
void SumRows(const PanelTask& task, const char* panel, const char* integers, int64_t row,
             int64_t rows, int64_t column) {
  const int64_t num_blocks = task.depth / kDepthBlock;
  TileSum tile;
  tile.q = task.quantized.q + row * task.depth;
  tile.depth = task.depth;
  for (int64_t r = 0; r < kRows; ++r) {
    const int64_t from = (row + (r < rows ? r : rows - 1)) * num_blocks;
    tile.scale[r] = task.quantized.scale + from;
    tile.sum[r] = task.quantized.sum + from;
  }
  for (int64_t t = 0; t < 2; ++t) {
    const int64_t first = column + t * kTileColumns;
    const int64_t left = task.columns - first;
    if (left <= 0) break;
    const __mmask16 mask =
        static_cast<__mmask16>((1u << (left < kTileColumns ? left : kTileColumns)) - 1);
    tile.integers = integers + t * kTileBytes;
    tile.scales = panel + Format::kIntegers + t * kTileColumns * 2;
    __m512 sums[kRows];
    SumTile<Format>(tile, sums);
    for (int64_t r = 0; r < rows; ++r) StoreRow(task, row + r, first, mask, sums[r]);
  }
}

template <typename Format>
void SumPanels(const PanelTask& task) {
  alignas(64) char integers[kMaxDepth * kPanelColumns];
  int64_t configured = 0;
  const char* panel = task.panels;
  for (int64_t column = 0; column < task.columns;
       column += kPanelColumns, panel += task.panel_bytes) {
    UnpackPanel<Format>(panel, task.depth / kDepthBlock, integers);
    for (int64_t row = 0; row < task.rows; row += kRows) {
      const int64_t rows = task.rows - row < kRows ? task.rows - row : kRows;
      if (rows != configured) Configure(rows);
      configured = rows;
      SumRows<Format>(task, panel, integers, row, rows, column);
    }
  }
  _tile_release();
}

template <typename Format>
void BlockPanels(const PanelTask& task, PanelKernel few_rows) {
  const int64_t tail = task.rows % kRows;
  const int64_t tiled = task.depth > kMaxDepth ? 0
                        : tail < kFewestRows   ? task.rows - tail
                                               : task.rows;
  if (tiled > 0) {
    PanelTask part = task;
    part.rows = tiled;
    SumPanels<Format>(part);
  }
  if (tiled == task.rows) return;
  PanelTask part = task;
  const int64_t num_blocks = task.depth / kDepthBlock;
  part.rows = task.rows - tiled;
  part.quantized.q += tiled * task.depth;
  part.quantized.scale += tiled * num_blocks;
  part.quantized.sum += tiled * num_blocks;
  part.y += tiled * task.y_stride;
  few_rows(part);
}

}  // namespace

void AmxQ80Panels(const PanelTask& task) { BlockPanels<Q80>(task, Avx512Q80Kernel()); }
void AmxQ40Panels(const PanelTask& task) { BlockPanels<Q40>(task, Avx512Q40Kernel()); }
void AmxQ41Panels(const PanelTask& task) { BlockPanels<Q41>(task, Avx512Q41Kernel()); }

}  // namespace polyad::cpu
