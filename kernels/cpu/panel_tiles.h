#pragma once

// How rows of numbers are laid into a panel's tiles: 16 columns by 32 deep, turned so that unit u
// of every column lies together, a unit being 4 bytes: one fp32 number or two of bf16. Numbers are
// narrowed on the way. Pure functions; any thread. The same bytes at every instruction set, so that
// the fastest of the machine is used whatever set the products run at.

#include <cstdint>

namespace polyad::cpu {

bool HasWideTiles();  // AVX-512: 16 rows are turned in registers

// A panel from `columns` (<= 32) rows of `in` numbers, one after the other.
void WriteFloatTiles(const float* rows, int64_t in, int64_t columns, char* panel,
                     bool wide = HasWideTiles());
void WriteBf16Tiles(const float* rows, int64_t in, int64_t columns, char* panel,
                    bool wide = HasWideTiles());
// From rows of bf16, each number times `scale`.
void WriteBf16Tiles(const uint16_t* rows, float scale, int64_t in, int64_t columns, char* panel,
                    bool wide = HasWideTiles());

}  // namespace polyad::cpu
