// Where the matrix instructions have their elements, against the formulas of NVIDIA's "Parallel
// Thread Execution ISA", version 9.2, written here as they stand there and used by nothing else:
//   A, B, C and D of mma.m16n8k16 with .bf16: section 9.7.14.5.8, "Matrix Fragments for
//     mma.m16n8k16 with floating point type", the formulas for row and column below each figure;
//   ldmatrix .m8n8 .x4 and .trans: section "Warp-level matrix load instruction: ldmatrix", its
//     table of addresses by thread and what it says of the fragments of a row.
// covers: kernels/simt/emulated_matrix.cc

#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/simt/simt.h"
#include "tests/kernels/simt/schedules.h"

namespace polyad::simt {
namespace {

struct Place {
  int row;
  int col;
};

// groupID = %laneid >> 2;  threadID_in_group = %laneid % 4
// row = groupID for ai where 0 <= i < 2 || 4 <= i < 6, groupID + 8 otherwise
// col = (threadID_in_group * 2) + (i & 0x1) for ai where i < 4, ... + 8 for ai where i >= 4
Place PlaceInA(int lane, int i) {
  const int group = lane >> 2;
  const int in_group = lane % 4;
  const bool upper = (0 <= i && i < 2) || (4 <= i && i < 6);
  return {upper ? group : group + 8, in_group * 2 + (i & 1) + (i < 4 ? 0 : 8)};
}

// row = (threadID_in_group * 2) + (i & 0x1) for bi where i < 2, ... + 8 for bi where i >= 2
// col = groupID
Place PlaceInB(int lane, int i) {
  const int in_group = lane % 4;
  return {in_group * 2 + (i & 1) + (i < 2 ? 0 : 8), lane >> 2};
}

// row = groupID for ci where i < 2, groupID + 8 for ci where i >= 2
// col = (threadID_in_group * 2) + (i & 0x1) for ci where i = {0,..,3}
Place PlaceInC(int lane, int i) {
  return {(lane >> 2) + (i < 2 ? 0 : 8), (lane % 4) * 2 + (i & 1)};
}

struct Fragments {
  std::array<std::array<uint32_t, 4>, 32> a;
  std::array<std::array<uint32_t, 2>, 32> b;
  std::array<std::array<float, 4>, 32> d;
};

SIMT_KERNEL(32) void MultiplyOnce(Fragments* all) {
  const auto lane = static_cast<size_t>(Lane());
  uint32_t a[4];
  uint32_t b[2];
  float d[4];
  for (size_t i = 0; i < 4; ++i) a[i] = all->a[lane][i];
  for (size_t i = 0; i < 2; ++i) b[i] = all->b[lane][i];
  for (size_t i = 0; i < 4; ++i) d[i] = all->d[lane][i];
  MmaBf16(d, a, b);
  for (size_t i = 0; i < 4; ++i) all->d[lane][i] = d[i];
}

// Element 0 is the lower half of register 0, element 1 its upper half, and so on.
template <size_t kRegisters>
void Put(std::array<uint32_t, kRegisters>& registers, int element, float value) {
  const auto at = static_cast<size_t>(element / 2);
  const uint32_t bits = ToBf16(value).bits;
  registers[at] = element % 2 == 0 ? (registers[at] & 0xffff0000u) | bits
                                   : (registers[at] & 0xffffu) | bits << 16;
}

TEST(FragmentLayoutTest, MmaMultipliesTheElementsThatPtxNames) {
  std::mt19937 random(1);
  std::uniform_int_distribution<int> digit(-8, 8);  // every product and sum is exact
  float a[16][16];
  float b[16][8];
  float c[16][8];
  for (auto& row : a) {
    for (float& value : row) value = static_cast<float>(digit(random));
  }
  for (auto& row : b) {
    for (float& value : row) value = static_cast<float>(digit(random));
  }
  for (auto& row : c) {
    for (float& value : row) value = static_cast<float>(digit(random));
  }
  Fragments all = {};
  for (int lane = 0; lane < 32; ++lane) {
    const auto own = static_cast<size_t>(lane);
    for (int i = 0; i < 8; ++i) {
      const Place at = PlaceInA(lane, i);
      Put(all.a[own], i, a[at.row][at.col]);
    }
    for (int i = 0; i < 4; ++i) {
      const Place at = PlaceInB(lane, i);
      Put(all.b[own], i, b[at.row][at.col]);
    }
    for (int i = 0; i < 4; ++i) {
      const Place at = PlaceInC(lane, i);
      all.d[own][static_cast<size_t>(i)] = c[at.row][at.col];
    }
  }
  EmulatedStream stream({});
  Launch({1, 32}, &stream, MultiplyOnce, &all);
  ASSERT_EQ(stream.fault(), "");
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Place at = PlaceInC(lane, i);
      float want = c[at.row][at.col];
      for (int k = 0; k < 16; ++k) want += a[at.row][k] * b[k][at.col];
      EXPECT_EQ(all.d[static_cast<size_t>(lane)][static_cast<size_t>(i)], want)
          << "lane " << lane << " c" << i;
    }
  }
}

constexpr int kMatrixStride = 24;  // of rows in shared memory: 48 bytes, aligned and with gaps

SIMT_KERNEL(32) void LoadOnce(const uint16_t* in, uint32_t* rows, uint32_t* columns) {
  SIMT_SHARED(Bf16, tile, 32 * kMatrixStride);
  for (int i = Lane(); i < 32 * kMatrixStride; i += 32) tile.Store(i, Bf16{in[i]});
  WarpBarrier();
  // .x4: threads 0-7 hand in addr0-addr7, 8-15 addr8-addr15 and so on; addr0-addr7 are the rows of
  // the first matrix, addr8-addr15 those of the second, ...
  uint32_t by_rows[4];
  uint32_t by_columns[4];
  LoadMatrix4(by_rows, tile, Lane() * kMatrixStride);
  LoadMatrix4Transposed(by_columns, tile, Lane() * kMatrixStride);
  for (int m = 0; m < 4; ++m) {
    rows[Lane() * 4 + m] = by_rows[m];
    columns[Lane() * 4 + m] = by_columns[m];
  }
}

class LoadMatrixTest : public testing::TestWithParam<EmulatorOptions> {};
INSTANTIATE_TEST_SUITE_P(All, LoadMatrixTest, testing::ValuesIn(Schedules()), NameOfSchedule);

TEST_P(LoadMatrixTest, EachLaneGetsTheTwoElementsThatPtxNames) {
  std::vector<uint16_t> in(32 * kMatrixStride);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<uint16_t>(i);
  std::vector<uint32_t> rows(128);
  std::vector<uint32_t> columns(128);
  EmulatedStream stream(GetParam());
  Launch({1, 32}, &stream, LoadOnce, in.data(), rows.data(), columns.data());
  ASSERT_EQ(stream.fault(), "");
  for (int lane = 0; lane < 32; ++lane) {
    for (int m = 0; m < 4; ++m) {
      // "A group of four threads loads an entire row": thread 0 holds row 0's first two elements in
      // the lower and upper half of r, thread 1 the next two, thread 4 begins row 1. With .trans
      // the matrix is read in column-major order: rows and columns change places.
      const auto element = [&](int row, int col) -> uint32_t {
        return in[static_cast<size_t>((8 * m + row) * kMatrixStride + col)];
      };
      const int outer = lane / 4;
      const int inner = 2 * (lane % 4);
      const auto at = static_cast<size_t>(lane * 4 + m);
      EXPECT_EQ(rows[at], element(outer, inner) | element(outer, inner + 1) << 16);
      EXPECT_EQ(columns[at], element(inner, outer) | element(inner + 1, outer) << 16);
    }
  }
}

// ldmatrix is made to fill mma's operands: what a warp loads by the usual addresses is A (16 x 16,
// rows of 16), or with .trans and rows k of 8 columns, B.
TEST(FragmentLayoutTest, RegistersOfALoadAreThoseOfAFragment) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 8; ++i) {
      const int m = i / 2;
      const Place loaded = {m % 2 * 8 + lane / 4, m / 2 * 8 + 2 * (lane % 4) + i % 2};
      const Place named = PlaceInA(lane, i);
      EXPECT_EQ(loaded.row, named.row);
      EXPECT_EQ(loaded.col, named.col);
    }
    for (int i = 0; i < 4; ++i) {
      const Place transposed = {i / 2 * 8 + 2 * (lane % 4) + i % 2, lane / 4};
      const Place named = PlaceInB(lane, i);
      EXPECT_EQ(transposed.row, named.row);
      EXPECT_EQ(transposed.col, named.col);
    }
  }
}

}  // namespace
}  // namespace polyad::simt
