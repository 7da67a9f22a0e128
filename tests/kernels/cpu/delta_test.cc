#include "kernels/cpu/delta.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/number_format.h"

// Low-rank deltas against a double-precision sum with tolerances from norms, and the promise that a
// row's bits depend on its own ops alone: not on its batch mates, its place, its segment's length
// or the threads.

namespace polyad::cpu {
namespace {

struct Op {
  std::vector<float> a, b;  // [rank, in], [out, rank], as the kernel holds them
  int64_t rank, in, out;
  float scale;
  std::unique_ptr<PackedDelta> packed;
};

struct Case {
  Isa isa;
  ComputeMode mode;
};

float Held(float value, ComputeMode mode) {
  return mode == ComputeMode::kF32 ? value : FromBf16(ToBf16(value));
}

class DeltaTest : public testing::TestWithParam<Case> {
 protected:
  Op MakeOp(int64_t rank, int64_t in, int64_t out, uint32_t seed, float scale = 0.5f) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 0.3f);
    Op op{{}, {}, rank, in, out, scale, nullptr};
    for (int64_t i = 0; i < rank * in; ++i) op.a.push_back(normal(random));
    for (int64_t i = 0; i < out * rank; ++i) op.b.push_back(normal(random));
    LowRank low_rank{
        {op.a.data(), DType::kF32, rank, in}, {op.b.data(), DType::kF32, out, rank}, scale};
    PackShare share;
    auto packed = PackDeltaCpu(low_rank, GetParam().mode, GetParam().isa, share);
    EXPECT_TRUE(packed.ok()) << packed.status();
    op.packed = *std::move(packed);
    for (float& value : op.a) value = Held(value, GetParam().mode);
    for (float& value : op.b) value = Held(value * scale, GetParam().mode);
    return op;
  }

  // [rows, in] inputs in the mode's precision, NaN between rows.
  void MakeInputs(int64_t rows, int64_t in, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 1.0f);
    stride_ = in + 1;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    full_.assign(static_cast<size_t>(rows * stride_), nan);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t k = 0; k < in; ++k)
        full_[static_cast<size_t>(row * stride_ + k)] = Held(normal(random), GetParam().mode);
    }
    half_.clear();
    for (float value : full_) half_.push_back(ToBf16(value));
  }
  ActivationRows Rows(int64_t begin, int64_t rows, int64_t in) {
    if (GetParam().mode == ComputeMode::kF32)
      return {full_.data() + begin * stride_, DType::kF32, rows, in, stride_};
    return {half_.data() + begin * stride_, DType::kBF16, rows, in, stride_};
  }

  std::vector<float> Apply(std::span<const DeltaSegment> segments, ActivationRows x,
                           int64_t columns, ThreadPool& pool, float before = 1.0f) {
    std::vector<float> y(static_cast<size_t>(x.rows * columns), before);
    ApplyCpu(segments, x, {y.data(), x.rows, columns, columns}, pool);
    return y;
  }

  // One element of y += B (A x) in doubles, and how far an implementation may be from it.
  void Reference(const Op& op, int64_t row, int64_t column, double* exact,
                 double* tolerance) const {
    const double eps = std::numeric_limits<float>::epsilon();
    const double middle_eps =
        GetParam().mode == ComputeMode::kF32 ? 0.0 : 0x1p-8;  // the middle rounds to bf16
    double norm = 0, sum = 0;
    for (int64_t r = 0; r < op.rank; ++r) {
      double h = 0, h_norm = 0;
      for (int64_t k = 0; k < op.in; ++k) {
        const double term = static_cast<double>(full_[static_cast<size_t>(row * stride_ + k)]) *
                            op.a[static_cast<size_t>(r * op.in + k)];
        h += term;
        h_norm += std::fabs(term);
      }
      const double b = op.b[static_cast<size_t>(column * op.rank + r)];
      sum += h * b;
      norm += std::fabs(b) *
              (static_cast<double>(op.in + op.rank + 4) * eps * h_norm + middle_eps * std::fabs(h));
    }
    *exact += sum;
    *tolerance += norm + eps * (std::fabs(sum) + 2.0);
  }

  std::vector<float> full_;
  std::vector<uint16_t> half_;
  int64_t stride_ = 0;
};

TEST_P(DeltaTest, RowBitsDependOnTheRowsOwnOpsAlone) {
  const int64_t in = 96, columns = 130, rows = 300;
  const Op first = MakeOp(16, in, 80, 1), second = MakeOp(3, in, 50, 2),
           third = MakeOp(33, in, 130, 3);
  MakeInputs(rows, in, 4);
  ThreadPool one(1), two(2);
  // Each row alone: even rows have the first op and the second beside it, odd rows the third.
  std::vector<float> alone;
  for (int64_t row = 0; row < rows; ++row) {
    std::vector<DeltaSegment> segments;
    if (row % 2 == 0) segments = {{0, 1, 0, first.packed.get()}, {0, 1, 80, second.packed.get()}};
    if (row % 2 == 1) segments = {{0, 1, 0, third.packed.get()}};
    const std::vector<float> y = Apply(segments, Rows(row, 1, in), columns, one);
    alone.insert(alone.end(), y.begin(), y.end());
  }
  for (int64_t count : {2, 3, 17, 33, 64, 300}) {
    std::vector<DeltaSegment> segments;
    for (int64_t row = 0; row < count; ++row) {
      if (row % 2 == 0) segments.push_back({row, row + 1, 0, first.packed.get()});
      if (row % 2 == 0) segments.push_back({row, row + 1, 80, second.packed.get()});
      if (row % 2 == 1) segments.push_back({row, row + 1, 0, third.packed.get()});
    }
    for (ThreadPool* pool : {&one, &two}) {
      const std::vector<float> y = Apply(segments, Rows(0, count, in), columns, *pool);
      ASSERT_EQ(std::memcmp(y.data(), alone.data(), y.size() * 4), 0) << count << " rows";
    }
  }
}

TEST_P(DeltaTest, LongSegmentsGiveTheBitsOfSingleRows) {
  const int64_t in = 64, out = 70, rows = 200;
  const Op op = MakeOp(20, in, out, 1);
  MakeInputs(rows, in, 2);
  ThreadPool one(1), two(2);
  std::vector<float> alone;
  for (int64_t row = 0; row < rows; ++row) {
    const DeltaSegment segment{0, 1, 0, op.packed.get()};
    const std::vector<float> y = Apply({&segment, 1}, Rows(row, 1, in), out, one);
    alone.insert(alone.end(), y.begin(), y.end());
  }
  for (int64_t count : {1, 2, 15, 16, 17, 33, 65, 128, 200}) {
    for (ThreadPool* pool : {&one, &two}) {
      const DeltaSegment segment{0, count, 0, op.packed.get()};
      const std::vector<float> y = Apply({&segment, 1}, Rows(rows - count, count, in), out, *pool);
      ASSERT_EQ(std::memcmp(y.data(), alone.data() + (rows - count) * out, y.size() * 4), 0)
          << count << " rows";
    }
  }
}

TEST_P(DeltaTest, AgreesWithADoubleSumAtAnyRank) {
  ThreadPool two(2);
  for (int64_t rank : {1, 2, 3, 8, 16, 17, 32, 33, 64, 100, 256}) {
    for (const auto& [in, out] :
         {std::pair<int64_t, int64_t>{48, 80}, {37, 41}, {1, 1}, {160, 16}}) {
      const Op op = MakeOp(rank, in, out, static_cast<uint32_t>(rank));
      MakeInputs(5, in, 7);
      const DeltaSegment segment{1, 4, 2, op.packed.get()};
      const std::vector<float> y = Apply({&segment, 1}, Rows(0, 5, in), out + 3, two);
      for (int64_t row = 0; row < 5; ++row) {
        for (int64_t column = 0; column < out + 3; ++column) {
          double exact = 1.0, tolerance = 0.0;
          if (row >= 1 && row < 4 && column >= 2 && column < out + 2)
            Reference(op, row, column - 2, &exact, &tolerance);
          ASSERT_NEAR(y[static_cast<size_t>(row * (out + 3) + column)], exact, tolerance)
              << "rank " << rank << " in " << in << " out " << out << " row " << row << " column "
              << column;
        }
      }
    }
  }
}

TEST_P(DeltaTest, OverlappingSegmentsAddInOrder) {
  const int64_t in = 40, out = 60, rows = 50;
  const Op first = MakeOp(8, in, out, 1), second = MakeOp(5, in, out, 2, 300.0f);
  MakeInputs(rows, in, 3);
  ThreadPool one(1), two(2);
  const DeltaSegment segments[] = {{0, 40, 0, first.packed.get()},
                                   {10, 50, 0, second.packed.get()}};
  std::vector<float> expected(static_cast<size_t>(rows * out), 1.0f);
  const FloatRows y{expected.data(), rows, out, out};
  ApplyCpu({segments, 1}, Rows(0, rows, in), y, one);
  ApplyCpu({segments + 1, 1}, Rows(0, rows, in), y, one);
  EXPECT_EQ(Apply(segments, Rows(0, rows, in), out, two), expected);
}

// With inputs that both read (the same format) and with inputs prepared twice (a Q8_0 base).
TEST_P(DeltaTest, AProductWithDeltasGivesTheBitsOfTheProductAndThenTheDeltas) {
  const int64_t in = 64, out = 200, rows = 70;
  const Op first = MakeOp(16, in, out, 1), second = MakeOp(5, in, 80, 2);
  MakeInputs(rows, in, 3);
  const std::vector<float> bias(static_cast<size_t>(out), 0.25f);
  std::vector<uint8_t> stored(static_cast<size_t>(out * RowBytes(DType::kBF16, in)));
  for (size_t i = 0; i < stored.size(); ++i) {  // bf16 of either sign about a half; small scales
    stored[i] = static_cast<uint8_t>(i % 2 == 0 ? i * 7 : 0x3f + (i % 3 == 0 ? 0x80 : 0));
  }
  ThreadPool one(1), two(2), four(4);
  for (const DType dtype : {DType::kBF16, DType::kQ8_0}) {
    const TensorView part{stored.data(), dtype, out, in};
    const auto matrix = PackMatrixCpu({&part, 1}, GetParam().mode, GetParam().isa, &one);
    ASSERT_TRUE(matrix.ok()) << matrix.status();
    for (const int64_t count : {1, 3, 33, 70}) {
      std::vector<DeltaSegment> segments;
      for (int64_t row = 0; row + 1 < count; ++row) {  // the last row is the base's
        segments.push_back({row, row + 1, 0, first.packed.get()});
        segments.push_back({row, row + 1, 100, second.packed.get(), 0.5f});
      }
      GemmArgs args;
      args.weight = matrix->get();
      args.bias = bias.data();
      args.accumulate = true;
      std::vector<float> expected(static_cast<size_t>(count * out), 1.0f);
      const FloatRows after{expected.data(), count, out, out};
      GemmCpu(args, Rows(0, count, in), after, one);
      ApplyCpu(segments, Rows(0, count, in), after, one);
      args.deltas = segments;
      for (ThreadPool* pool : {&one, &two, &four}) {
        std::vector<float> y(static_cast<size_t>(count * out), 1.0f);
        GemmCpu(args, Rows(0, count, in), {y.data(), count, out, out}, *pool);
        ASSERT_EQ(std::memcmp(y.data(), expected.data(), y.size() * 4), 0)
            << count << " rows, " << pool->num_threads() << " threads";
      }
    }
  }
}

TEST_P(DeltaTest, CostIsTheUnpaddedRank) {
  const Op op = MakeOp(34, 64, 96, 1);
  const int64_t element = GetParam().mode == ComputeMode::kF32 ? 4 : 2;
  const Precision held = element == 4 ? Precision::kF32 : Precision::kBF16;
  EXPECT_EQ(op.packed->cost().bytes, PrecisionBytes(held, 34 * (64 + 96) * element));
  EXPECT_EQ(op.packed->cost().flops_per_token, 2 * 34 * (64 + 96));
}

TEST_P(DeltaTest, EmptySegmentsChangeNothing) {
  const Op op = MakeOp(4, 32, 32, 1);
  MakeInputs(2, 32, 1);
  ThreadPool two(2);
  const DeltaSegment segment{1, 1, 0, op.packed.get()};
  for (float value : Apply({&segment, 1}, Rows(0, 2, 32), 32, two)) EXPECT_EQ(value, 1.0f);
  for (float value : Apply({}, Rows(0, 2, 32), 32, two)) EXPECT_EQ(value, 1.0f);
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa > BestIsa()) continue;
    cases.push_back({isa, ComputeMode::kF32});
    cases.push_back({isa, ComputeMode::kAuto});
  }
  return cases;
}

std::string NameOfCase(const testing::TestParamInfo<Case>& info) {
  return std::string(NameOf(info.param.isa)) +
         (info.param.mode == ComputeMode::kF32 ? "_exact" : "_auto");
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, DeltaTest, testing::ValuesIn(Cases()), NameOfCase);

TEST(PackDeltaTest, FactorsThatViewTheSameMemoryArePackedOnce) {
  const std::vector<float> values(8 * 64, 0.5f);
  const TensorView a{values.data(), DType::kF32, 8, 64};
  const TensorView b{values.data(), DType::kF32, 64, 8};
  const std::vector<float> inner(8, 1.0f);
  PackShare share;
  const auto bytes = [&share](const DeltaOp& op) {
    return (*PackDeltaCpu(op, ComputeMode::kF32, BestIsa(), share))->cost().bytes.total();
  };
  EXPECT_EQ(bytes(LowRank{a, b, 1.0f}), 2 * 8 * 64 * 4);
  EXPECT_EQ(bytes(LowRank{a, b, 1.0f}), 0);
  EXPECT_EQ(bytes(LowRank{a, b, 1.0f, inner}), 8 * 4) << "its own vector alone";
  EXPECT_EQ(bytes(LowRank{a, b, 2.0f}), 8 * 64 * 4) << "another scale is another B";
  const TensorView part{values.data(), DType::kF32, 8, 32};
  EXPECT_EQ(bytes(Dense{part}), 8 * 32 * 4) << "another shape is another matrix";
  PackShare other;
  const auto packed = *PackDeltaCpu(LowRank{a, b}, ComputeMode::kF32, BestIsa(), other);
  EXPECT_EQ(packed->cost().bytes.total(), 2 * 8 * 64 * 4) << "another adapter shares nothing";
}

TEST(PackDeltaTest, BytesAreToldByTheirPrecision) {
  const int64_t out = 64, in = 256;
  const std::vector<uint32_t> bits(static_cast<size_t>(out * in / 32), 0x5a5a5a5au);
  const std::vector<float> scale(static_cast<size_t>(out), 0.5f);
  const std::vector<int32_t> begin = {0, 2, 3};
  const std::vector<int32_t> columns = {1, 7, 3};
  const std::vector<float> values = {1, 2, 3};
  PackShare share;
  const auto cost = [&share](const DeltaOp& op) {
    return (*PackDeltaCpu(op, ComputeMode::kAuto, BestIsa(), share))->cost().bytes;
  };
  const PrecisionBytes signs = cost(SignBits{bits, scale, out, in});
  EXPECT_EQ(signs, PrecisionBytes(Precision::k1Bit, out * in / 8) + FloatBytes(scale.size()));
  const PrecisionBytes sparse = cost(Sparse{begin, columns, values, 8});
  EXPECT_GE(sparse[Precision::kF32], 3 * 4);
  EXPECT_GT(sparse[Precision::kIndex], 0);
  EXPECT_EQ(sparse.total(), sparse[Precision::kF32] + sparse[Precision::kIndex]);
}

TEST(PackDeltaTest, SharedFactorsOutliveTheOpThatPackedThem) {
  const std::vector<float> ones(16, 1.0f);
  const LowRank op{{ones.data(), DType::kF32, 1, 16}, {ones.data(), DType::kF32, 16, 1}};
  std::unique_ptr<PackedDelta> second;
  {
    PackShare share;
    const auto first = *PackDeltaCpu(op, ComputeMode::kF32, BestIsa(), share);
    second = *PackDeltaCpu(op, ComputeMode::kF32, BestIsa(), share);
  }
  std::vector<float> x(16, 1.0f);
  std::vector<float> y(16, 1.0f);
  ThreadPool one(1);
  const DeltaSegment segment{0, 1, 0, second.get()};
  ApplyCpu({&segment, 1}, {x.data(), DType::kF32, 1, 16, 16}, {y.data(), 1, 16, 16}, one);
  for (float value : y) EXPECT_EQ(value, 17.0f);
}

TEST(PackDeltaTest, RefusesFactorsThatDoNotChain) {
  const std::vector<float> zeros(64, 0.0f);
  const LowRank op{{zeros.data(), DType::kF32, 4, 8}, {zeros.data(), DType::kF32, 8, 3}, 1.0f};
  PackShare share;
  EXPECT_EQ(PackDeltaCpu(op, ComputeMode::kAuto, BestIsa(), share).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(PackDeltaTest, RefusesQuantisedFactors) {
  const std::vector<float> zeros(64, 0.0f);
  const LowRank op{{zeros.data(), DType::kQ8_0, 1, 32}, {zeros.data(), DType::kF32, 8, 1}, 1.0f};
  PackShare share;
  EXPECT_EQ(PackDeltaCpu(op, ComputeMode::kAuto, BestIsa(), share).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace polyad::cpu
