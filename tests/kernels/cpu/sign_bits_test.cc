#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/delta.h"

// 1-bit deltas on the CPU: exact integer sums, so every instruction set gives the same bits
// (op_conformance_test compares them with the reference, delta_invariance_test with other batches).

namespace polyad::cpu {
namespace {

struct Signs {
  std::vector<uint32_t> bits;
  std::vector<float> scale;
  SignBits op;
};

Signs RandomSigns(int64_t in, int64_t out, int64_t groups) {
  std::mt19937 random(7);
  Signs signs;
  for (int64_t i = 0; i < out * ((in + 31) / 32); ++i) signs.bits.push_back(random());
  for (int64_t i = 0; i < out * groups; ++i) {
    signs.scale.push_back(static_cast<float>(i % 11) * 0.25f - 1.0f);
  }
  signs.op = {signs.bits, signs.scale, out, in, groups};
  return signs;
}

std::vector<float> Add(const SignBits& op, std::vector<float> x, Isa isa) {
  PackShare share;
  const auto packed = PackDeltaCpu(op, ComputeMode::kF32, isa, share);
  EXPECT_TRUE(packed.ok()) << packed.status();
  std::vector<float> y(static_cast<size_t>(op.out), 0.5f);
  const DeltaSegment segment{0, 1, 0, packed->get()};
  ThreadPool one(1);
  ApplyCpu({&segment, 1}, {x.data(), DType::kF32, 1, op.in, op.in}, {y.data(), 1, op.out, op.out},
           one);
  return y;
}

// `rows` rows of x through `planes` copies of the op, by so many threads.
std::vector<float> AddOn(const SignBits& op, std::vector<float> x, int64_t planes, int threads) {
  const int64_t rows = static_cast<int64_t>(x.size()) / op.in;
  PackShare share;
  const auto packed = *PackDeltaCpu(op, ComputeMode::kF32, BestIsa(), share);
  std::vector<float> y(static_cast<size_t>(rows * op.out), 0.5f);
  const std::vector<DeltaSegment> segments(static_cast<size_t>(planes),
                                           DeltaSegment{0, rows, 0, packed.get()});
  ThreadPool pool(threads);
  ApplyCpu(segments, {x.data(), DType::kF32, rows, op.in, op.in}, {y.data(), rows, op.out, op.out},
           pool);
  return y;
}

std::vector<float> RandomRow(int64_t size, float scale) {
  std::mt19937 random(9);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> row(static_cast<size_t>(size));
  for (float& value : row) value = normal(random);
  return row;
}

TEST(SignBitsTest, EveryInstructionSetGivesTheSameBits) {
  for (const int64_t groups : {1, 3}) {
    const Signs signs = RandomSigns(192, 150, groups);
    for (const float scale : {1e-20f, 1.0f, 1e20f}) {
      const std::vector<float> x = RandomRow(192, scale);
      const std::vector<float> expected = Add(signs.op, x, Isa::kScalar);
      for (const Isa isa : {Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
        if (isa > BestIsa()) continue;
        EXPECT_EQ(Add(signs.op, x, isa), expected) << NameOf(isa);
      }
    }
  }
}

// One thread takes whole rows; several divide few rows by outputs, the last part a ragged one.
TEST(SignBitsTest, RowsDividedByOutputsKeepTheirBits) {
  for (const int64_t groups : {1, 4}) {
    const Signs signs = RandomSigns(1024, 1237, groups);
    for (const int64_t rows : {1, 2, 3, 9}) {
      const std::vector<float> x = RandomRow(rows * 1024, 1.0f);
      const std::vector<float> expected = AddOn(signs.op, x, 2, 1);
      for (const int threads : {2, 3, 8}) {
        EXPECT_EQ(AddOn(signs.op, x, 2, threads), expected) << rows << " rows, " << threads;
      }
    }
  }
}

// An outlier a thousand times the other inputs leaves them 10 bits, more than bf16 has.
TEST(SignBitsTest, SmallInputsBesideALargeOneKeepTheirShare) {
  const Signs signs = RandomSigns(64, 16, 1);
  std::vector<float> x = RandomRow(64, 1.0f);
  x[5] = 3000.0f;
  const std::vector<float> y = Add(signs.op, x, BestIsa());
  for (int64_t o = 0; o < 16; ++o) {
    double sum = 0;
    for (int64_t i = 0; i < 64; ++i) {
      const bool plus = (signs.bits[static_cast<size_t>(o * 2 + i / 32)] >> (i % 32) & 1u) != 0;
      sum += plus ? x[static_cast<size_t>(i)] : -x[static_cast<size_t>(i)];
    }
    const double scale = signs.scale[static_cast<size_t>(o)];
    EXPECT_NEAR(y[static_cast<size_t>(o)], 0.5 + scale * sum, 0.02 * std::abs(scale) + 1e-6);
  }
}

TEST(SignBitsTest, ARowOfZerosAddsNothingAndANonFiniteOneShows) {
  const Signs signs = RandomSigns(40, 20, 1);
  std::vector<float> x(40, 0.0f);
  for (const float value : Add(signs.op, x, BestIsa())) EXPECT_EQ(value, 0.5f);
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    x[39] = bad;
    for (const float value : Add(signs.op, x, BestIsa())) EXPECT_TRUE(std::isnan(value));
  }
}

}  // namespace
}  // namespace polyad::cpu
