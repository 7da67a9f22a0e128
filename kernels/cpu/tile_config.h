#pragma once

// What every kernel on the tile unit needs before its first product. For sources compiled for AMX
// alone. Loading a configuration clears the tiles. Source: Intel SDM volume 1, chapter 18.

#include <immintrin.h>

#include <cstdint>

namespace polyad::cpu {

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};  // of each tile's columns
  uint8_t rows[16] = {};
};

// GCC's tile intrinsics are opaque assembly that names no memory: what they read must be written
// before.
static inline void FinishWrites() { __asm__ volatile("" ::: "memory"); }

static inline void LoadTileConfig(const TileConfig& config) {
  FinishWrites();
  _tile_loadconfig(&config);
}

}  // namespace polyad::cpu
