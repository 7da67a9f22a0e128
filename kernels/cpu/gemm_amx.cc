#include <immintrin.h>

#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/tile_config.h"

// y[r][c] (+)= sum_k x[r][k] w[k][c] on AMX tiles, bf16 in and fp32 out. One element's sum is the
// chain of tile dots over blocks of 32 inputs, in order; the tile instruction computes each row of
// a tile by itself, so 1 row and 512 give the same bits (gemm_test). Tiles: 0-3 sums, 4-5 inputs,
// 6-7 weights. Up to 16 rows take 4 column tiles of two panels at once (streaming weights); more
// rows take 2 x 2 tiles.

namespace polyad::cpu {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kBlockBytes = 2 * kTileBytes;  // a block of 32 inputs in a full panel
constexpr int64_t kPrefetchBytes = 2048;

// The shapes in use; loading a configuration clears the tiles, so it changes only between sums.
struct Shape {
  int64_t rows0, rows1;    // of the two row tiles
  int64_t width0, width1;  // of the two column tiles of a panel
  int64_t pairs;           // of inputs in a block
};

inline bool Same(const Shape& a, const Shape& b) {
  return a.rows0 == b.rows0 && a.rows1 == b.rows1 && a.width0 == b.width0 && a.width1 == b.width1 &&
         a.pairs == b.pairs;
}

// kWide: tiles 0-3 are one row tile by two full panels; else 2 x 2.
void Configure(const Shape& shape, bool wide) {
  TileConfig config;
  const int64_t width1 = shape.width1 > 0 ? shape.width1 : 1;
  for (int tile = 0; tile < 4; ++tile) {
    const bool second = !wide && tile >= 2;
    config.rows[tile] = static_cast<uint8_t>(second && shape.rows1 > 0 ? shape.rows1 : shape.rows0);
    config.row_bytes[tile] = static_cast<uint16_t>((tile % 2 == 0 ? shape.width0 : width1) * 4);
  }
  config.rows[4] = static_cast<uint8_t>(shape.rows0);
  config.rows[5] = static_cast<uint8_t>(shape.rows1 > 0 ? shape.rows1 : 1);
  config.row_bytes[4] = config.row_bytes[5] = static_cast<uint16_t>(shape.pairs * 4);
  config.rows[6] = config.rows[7] = static_cast<uint8_t>(shape.pairs);
  config.row_bytes[6] = static_cast<uint16_t>(shape.width0 * 4);
  config.row_bytes[7] = static_cast<uint16_t>(width1 * 4);
  LoadTileConfig(config);
}

inline void Prefetch(const char* at) {
  for (int64_t line = 0; line < kTileBytes; line += 64) _mm_prefetch(at + line, _MM_HINT_T1);
}

// What to fetch ahead while a panel is summed. One pair of row tiles meets each weight once: fetch
// just ahead. More row tiles meet a panel from cache, and each fetches its share of the next panel.
struct Ahead {
  const char* at;
  int64_t bytes_per_block;
  bool near;  // wanted in L1, since the sum comes to it within the microsecond
};

Ahead AheadOf(const PanelTask& task, const char* panel, int64_t row) {
  const int64_t passes = (task.rows + 2 * kTileRows - 1) / (2 * kTileRows);
  if (passes == 1) return {panel + 2 * kPrefetchBytes, kBlockBytes, true};
  const int64_t share = (kBlockBytes / passes + 63) / 64 * 64;
  const int64_t blocks = task.depth / kDepthBlock;
  return {panel + task.panel_bytes + row / (2 * kTileRows) * share * blocks, share, false};
}

// Adds bias and sink to `rows` x `width` sums of a tile and writes them out.
void StoreTile(const PanelTask& task, const float* sums, int64_t rows, int64_t width, float* y,
               const float* bias) {
  const __mmask16 mask = static_cast<__mmask16>((1u << width) - 1);
  const __m512 b = bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, bias);
  for (int64_t r = 0; r < rows; ++r, y += task.y_stride) {
    __m512 sum = _mm512_load_ps(sums + r * kTileColumns);
    if (bias != nullptr) sum = _mm512_add_ps(sum, b);
    if (task.accumulate) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sum);
    _mm512_mask_storeu_ps(y, mask, sum);
  }
}

#define POLYAD_START_TILE(number, row, column, onto_sink)          \
  do {                                                             \
    if (onto_sink) {                                               \
      _tile_loadd(number, task.y + (row)*task.y_stride + (column), \
                  static_cast<size_t>(task.y_stride) * 4);         \
    } else {                                                       \
      _tile_zero(number);                                          \
    }                                                              \
  } while (false)

#define POLYAD_STORE_TILE(number, row, column, tile_rows, width)            \
  do {                                                                      \
    float* y_at = task.y + (row)*task.y_stride + (column);                  \
    if (task.bias == nullptr && (!task.accumulate || StartsOnSink(task))) { \
      _tile_stored(number, y_at, static_cast<size_t>(task.y_stride) * 4);   \
    } else {                                                                \
      alignas(64) float sums[kTileRows * kTileColumns];                     \
      _tile_stored(number, sums, kTileColumns * 4);                         \
      FinishWrites();                                                       \
      StoreTile(task, sums, tile_rows, width, y_at,                         \
                task.bias == nullptr ? nullptr : task.bias + (column));     \
    }                                                                       \
  } while (false)

inline const uint16_t* InputRow(const PanelTask& task, int64_t row) {
  return static_cast<const uint16_t*>(task.x) + row * task.x_stride;
}

// Up to 16 rows by two full panels: weights stream from memory, four independent sums hide the tile
// latency.
template <bool kFetch>
void SumWide(const PanelTask& task, const char* panel, int64_t row, int64_t column) {
  const char* x = reinterpret_cast<const char*>(InputRow(task, row));
  const auto x_stride = static_cast<size_t>(task.x_stride) * 2;
  const char* second = panel + task.panel_bytes;
  const int64_t rows = task.rows - row < kTileRows ? task.rows - row : kTileRows;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const int64_t blocks = task.depth / kDepthBlock;
  for (int64_t block = 0; block < blocks; ++block) {
    _tile_loadd(4, x + block * 64, x_stride);
    if (kFetch) Prefetch(panel + kPrefetchBytes);
    _tile_loadd(6, panel, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (kFetch) Prefetch(panel + kPrefetchBytes + kTileBytes);
    _tile_loadd(7, panel + kTileBytes, 64);
    _tile_dpbf16ps(1, 4, 7);
    if (kFetch) Prefetch(second + kPrefetchBytes);
    _tile_loadd(6, second, 64);
    _tile_dpbf16ps(2, 4, 6);
    if (kFetch) Prefetch(second + kPrefetchBytes + kTileBytes);
    _tile_loadd(7, second + kTileBytes, 64);
    _tile_dpbf16ps(3, 4, 7);
    panel += kBlockBytes;
    second += kBlockBytes;
  }
  POLYAD_STORE_TILE(0, row, column, rows, kTileColumns);
  POLYAD_STORE_TILE(1, row, column + 16, rows, kTileColumns);
  POLYAD_STORE_TILE(2, row, column + 32, rows, kTileColumns);
  POLYAD_STORE_TILE(3, row, column + 48, rows, kTileColumns);
}

// A short last block, as a full one: zero weights add nothing.
struct alignas(64) PaddedBlock {
  char tiles[2][kTileBytes];
};

void PadBlock(const char* block, const Shape& shape, int64_t pairs, PaddedBlock* padded) {
  __builtin_memset(padded, 0, sizeof(*padded));
  const int64_t bytes0 = pairs * shape.width0 * 4;
  __builtin_memcpy(padded->tiles[0], block, static_cast<size_t>(bytes0));
  __builtin_memcpy(padded->tiles[1], block + bytes0, static_cast<size_t>(pairs * shape.width1 * 4));
  FinishWrites();
}

// One or two row tiles by one or two column tiles of one panel, any width and depth.
template <bool kTwoRows, bool kTwoColumns>
void SumPanel(const PanelTask& task, const char* panel, const Shape& shape, int64_t row,
              int64_t column) {
  const char* x0 = reinterpret_cast<const char*>(InputRow(task, row));
  const char* x1 = reinterpret_cast<const char*>(InputRow(task, row + kTileRows));
  const auto x_stride = static_cast<size_t>(task.x_stride) * 2;
  const auto stride0 = static_cast<size_t>(shape.width0) * 4;
  const auto stride1 = static_cast<size_t>(shape.width1) * 4;
  const int64_t tile_bytes = shape.pairs * shape.width0 * 4;
  const int64_t block_bytes = tile_bytes + shape.pairs * shape.width1 * 4;
  const bool onto_sink = StartsOnSink(task);
  POLYAD_START_TILE(0, row, column, onto_sink);
  if (kTwoColumns) POLYAD_START_TILE(1, row, column + kTileColumns, onto_sink);
  if (kTwoRows) POLYAD_START_TILE(2, row + kTileRows, column, onto_sink);
  if (kTwoRows && kTwoColumns)
    POLYAD_START_TILE(3, row + kTileRows, column + kTileColumns, onto_sink);
  const auto add = [&](const char* w0, const char* w1, int64_t at) {
    _tile_loadd(6, w0, stride0);
    _tile_loadd(4, x0 + at, x_stride);
    _tile_dpbf16ps(0, 4, 6);
    if (kTwoColumns) {
      _tile_loadd(7, w1, stride1);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (kTwoRows) {
      _tile_loadd(5, x1 + at, x_stride);
      _tile_dpbf16ps(2, 5, 6);
      if (kTwoColumns) _tile_dpbf16ps(3, 5, 7);
    }
  };
  const int64_t whole = shape.pairs == kTileRows ? task.depth / kDepthBlock : 1;
  Ahead ahead = AheadOf(task, panel, row);
  for (int64_t block = 0; block < whole; ++block) {
    if (ahead.near) {
      for (int64_t line = 0; line < kBlockBytes; line += 64) {
        _mm_prefetch(ahead.at + line, _MM_HINT_T0);
      }
    } else {
      for (int64_t line = 0; line < ahead.bytes_per_block; line += 64) {
        _mm_prefetch(ahead.at + line, _MM_HINT_T1);
      }
    }
    ahead.at += ahead.bytes_per_block;
    add(panel, panel + tile_bytes, block * 64);
    panel += block_bytes;
  }
  if (whole * kDepthBlock < task.depth && shape.pairs == kTileRows) {
    PaddedBlock padded;
    PadBlock(panel, shape, (task.depth - whole * kDepthBlock + 1) / 2, &padded);
    add(padded.tiles[0], padded.tiles[1], whole * 64);
  }
  POLYAD_STORE_TILE(0, row, column, shape.rows0, shape.width0);
  if (kTwoColumns) POLYAD_STORE_TILE(1, row, column + kTileColumns, shape.rows0, shape.width1);
  if (kTwoRows) {
    POLYAD_STORE_TILE(2, row + kTileRows, column, shape.rows1, shape.width0);
    if (kTwoColumns)
      POLYAD_STORE_TILE(3, row + kTileRows, column + kTileColumns, shape.rows1, shape.width1);
  }
}

void SumRows(const PanelTask& task, const char* panel, const Shape& shape, int64_t row,
             int64_t column) {
  if (shape.rows1 > 0) {
    if (shape.width1 > 0) {
      SumPanel<true, true>(task, panel, shape, row, column);
    } else {
      SumPanel<true, false>(task, panel, shape, row, column);
    }
  } else if (shape.width1 > 0) {
    SumPanel<false, true>(task, panel, shape, row, column);
  } else {
    SumPanel<false, false>(task, panel, shape, row, column);
  }
}

inline int64_t AtMost(int64_t value, int64_t most) {
  return value < 0 ? 0 : value < most ? value : most;
}

// Not inlined: no arithmetic may wander across the caller's change of mode.
__attribute__((noinline)) void SumOnTiles(const PanelTask& task) {
  Shape current{0, 0, 0, 0, 0};
  const char* panel = task.panels;
  int64_t column = 0;
  const bool whole_depth = task.depth % kDepthBlock == 0;
  if (task.rows <= kTileRows && whole_depth && !StartsOnSink(task)) {
    for (; column + 2 * kPanelColumns <= task.columns;
         column += 2 * kPanelColumns, panel += 2 * task.panel_bytes) {
      for (int64_t row = 0; row < task.rows; row += kTileRows) {
        const Shape shape{AtMost(task.rows - row, kTileRows), 0, kTileColumns, kTileColumns,
                          kTileRows};
        if (!Same(shape, current)) Configure(shape, true);
        current = shape;
        if (row == 0) {
          SumWide<true>(task, panel, row, column);
        } else {
          SumWide<false>(task, panel, row, column);
        }
      }
    }
    current = Shape{0, 0, 0, 0, 0};
  }
  const int64_t pairs = AtMost((task.depth + 1) / 2, kTileRows);
  for (; column < task.columns; column += kPanelColumns, panel += task.panel_bytes) {
    for (int64_t row = 0; row < task.rows; row += 2 * kTileRows) {
      const int64_t rows = task.rows - row;
      const int64_t columns = task.columns - column;
      const Shape shape{AtMost(rows, kTileRows), AtMost(rows - kTileRows, kTileRows),
                        AtMost(columns, kTileColumns), AtMost(columns - kTileColumns, kTileColumns),
                        pairs};
      if (!Same(shape, current)) Configure(shape, false);
      current = shape;
      SumRows(task, panel, shape, row, column);
    }
  }
  _tile_release();
}

void Bf16Panels(const PanelTask& task) {
  if (task.rows <= kAmxFewRows && task.depth <= kAmxFewRowsDepth) return AmxFewRowsBf16(task);
  constexpr unsigned kSubnormalsAreZero =
      0x8040;  // as the tile dots, so that bias and sink follow the few-row path
  const unsigned control = _mm_getcsr();
  _mm_setcsr(control | kSubnormalsAreZero);
  SumOnTiles(task);
  _mm_setcsr(control);
}

}  // namespace

GemmKernels AmxGemmKernels() {
  GemmKernels kernels = Avx512GemmKernels(false);
  kernels.bf16 = Bf16Panels;
  kernels.integers8 = AmxIntegers8;
  kernels.integers4 = AmxIntegers4;
  kernels.bf16_takes_f32_rows = false;
  kernels.bf16_depth_multiple = kDepthBlock;
  return kernels;
}

}  // namespace polyad::cpu
