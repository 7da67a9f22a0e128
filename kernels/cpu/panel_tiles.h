#pragma once

// How rows of numbers are laid into a panel's tiles: 16 columns by 32 deep, turned so that unit u
// of every column lies together, a unit being 4 bytes: one fp32 number or two of bf16. Numbers are
// narrowed on the way. Pure functions; any thread. `wide`: 16 rows are turned in registers of
// AVX-512, for the same bytes.

#include <cstdint>

#include "kernels/api/wide_lanes.h"

namespace polyad::cpu {

// A panel from `columns` (<= 32) rows of `in` numbers, one after the other.
void WriteFloatTiles(const float* rows, int64_t in, int64_t columns, char* panel,
                     bool wide = UsesWideLanes());
void WriteBf16Tiles(const float* rows, int64_t in, int64_t columns, char* panel,
                    bool wide = UsesWideLanes());
// From rows of bf16, each number times `scale`.
void WriteBf16Tiles(const uint16_t* rows, float scale, int64_t in, int64_t columns, char* panel,
                    bool wide = UsesWideLanes());

}  // namespace polyad::cpu
