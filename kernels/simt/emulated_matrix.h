#pragma once

// The warp's matrix instructions, emulated: operands of all 32 lanes at once, as
// EmulatedBlock::WarpCall hands them over. Where elements lie: PTX ISA 9.x, "Matrix Fragments for
// mma.m16n8k16 with floating point type" and "ldmatrix"; tests/kernels/simt/fragment_layout_test.cc
// holds them against those tables. Sums are fp32, by ascending k; a tensor core may add in another
// order and keeps other bits of the addends. Pure, but for the count.

#include <cstdint>

namespace polyad::simt {

// d += A B, A 16 x 16 and B 16 x 8 of bf16.
struct MmaOperand {
  float* d;
  const uint32_t* a;  // 4 registers
  const uint32_t* b;  // 2
};
void EmulateMma(void* const* operands);
// How many there were in this process so far.
int64_t NumMatrixProducts();

// Four matrices of 8 x 8: row r of matrix m is what lane 8 m + r points at.
struct LoadMatrixOperand {
  uint32_t* to;  // 4 registers
  uint16_t row[8];
};
void EmulateLoadMatrix(void* const* operands);
void EmulateLoadMatrixTransposed(void* const* operands);

}  // namespace polyad::simt
