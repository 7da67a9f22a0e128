#pragma once

// Weights in the order the tensor cores take them: matrix W [rows, cols] is the A operand of
// mma.m16n8k16, cut into tiles of 16 x 16, and each lane's eight elements of a tile lie together. A
// warp so reads a tile as 512 consecutive bytes, 16 a lane, and needs no shared memory for it.
// Tiles go along cols first; what a tile has beyond the matrix is zeros. Made while packing, on any
// thread. Source of the order: PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point
// type".

#include <cstdint>
#include <functional>
#include <vector>

namespace polyad::cuda {

inline constexpr int kTile = 16;             // rows and cols of a tile
inline constexpr int kTileElements = 256;    // of it
inline constexpr int kFragmentElements = 8;  // of it, of one lane

// Element i of `lane` is this one of its tile.
struct TilePlace {
  int row;
  int col;
};
constexpr TilePlace PlaceInFragment(int lane, int i) {
  return {lane / 4 + i / 2 % 2 * 8, lane % 4 * 2 + i % 2 + i / 4 * 8};
}

// bf16 bits of element(row, col), rounded to nearest even.
std::vector<uint16_t> PackFragments(int64_t rows, int64_t cols,
                                    const std::function<float(int64_t, int64_t)>& element);

}  // namespace polyad::cuda
