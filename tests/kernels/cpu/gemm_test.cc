#include "kernels/cpu/gemm.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/number_format.h"
#include "kernels/cpu/packed_matrix.h"

// Products against a double-precision sum over the very numbers the kernel is given (stored weights
// decoded, bf16 inputs), with tolerances from norms; and the promise that a row's bits depend on
// nothing but the row.

namespace polyad::cpu {
namespace {

struct Stored {
  DType dtype;
  int64_t rows;
  int64_t cols;
  std::vector<uint8_t> bytes;
  TensorView view() const { return {bytes.data(), dtype, rows, cols}; }
};

// Truncates, and flushes what f16 holds as subnormal: any f16 will do as a test weight.
uint16_t ToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t exponent = (bits >> 23) & 255u;
  if (exponent < 113) return static_cast<uint16_t>(sign);
  return static_cast<uint16_t>(sign | ((exponent - 112u) << 10) | ((bits >> 13) & 1023u));
}

Stored MakeStored(DType dtype, int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.5f);
  Stored stored{dtype, rows, cols, {}};
  stored.bytes.resize(static_cast<size_t>(rows * RowBytes(dtype, cols)));
  if (InfoOf(dtype).block_elements > 1) {
    for (uint8_t& byte : stored.bytes) byte = static_cast<uint8_t>(random());
    const auto block_bytes = static_cast<size_t>(InfoOf(dtype).block_bytes);
    for (size_t at = 0; at < stored.bytes.size(); at += block_bytes) {
      const uint16_t d = ToF16(0.01f + 0.01f * std::fabs(normal(random)));
      const uint16_t m = ToF16(-0.1f + 0.02f * normal(random));
      std::memcpy(&stored.bytes[at], &d, 2);
      if (dtype == DType::kQ4_1) std::memcpy(&stored.bytes[at + 2], &m, 2);
    }
    return stored;
  }
  for (int64_t i = 0; i < rows * cols; ++i) {
    const float value = normal(random);
    const uint16_t half = dtype == DType::kF16 ? ToF16(value) : ToBf16(value);
    if (dtype == DType::kF32) {
      std::memcpy(&stored.bytes[static_cast<size_t>(i) * 4], &value, 4);
    } else {
      std::memcpy(&stored.bytes[static_cast<size_t>(i) * 2], &half, 2);
    }
  }
  return stored;
}

struct Inputs {
  std::vector<uint16_t> half;
  std::vector<float> full;
  int64_t stride = 0;
  ComputeMode mode;

  ActivationRows Rows(int64_t begin, int64_t rows, int64_t cols) {
    if (mode == ComputeMode::kF32)
      return {full.data() + begin * stride, DType::kF32, rows, cols, stride};
    return {half.data() + begin * stride, DType::kBF16, rows, cols, stride};
  }
  float At(int64_t row, int64_t k) const {
    const auto i = static_cast<size_t>(row * stride + k);
    return mode == ComputeMode::kF32 ? full[i] : FromBf16(half[i]);
  }
};

// Rows are `stride` apart with NaN between them: reading past a row's end must not show.
Inputs MakeInputs(ComputeMode mode, int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  Inputs inputs;
  inputs.mode = mode;
  inputs.stride = cols + 3;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  inputs.full.assign(static_cast<size_t>(rows * inputs.stride), nan);
  inputs.half.assign(inputs.full.size(), ToBf16(nan));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t k = 0; k < cols; ++k) {
      const float value = normal(random);
      inputs.full[static_cast<size_t>(row * inputs.stride + k)] = value;
      inputs.half[static_cast<size_t>(row * inputs.stride + k)] = ToBf16(value);
    }
  }
  return inputs;
}

std::vector<Isa> MachineIsas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa <= BestIsa()) isas.push_back(isa);
  }
  return isas;
}

struct Case {
  Isa isa;
  ComputeMode mode;
  DType dtype;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (Isa isa : MachineIsas()) {
    for (DType dtype :
         {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1}) {
      cases.push_back({isa, ComputeMode::kAuto, dtype});
      if (dtype == DType::kF32 || dtype == DType::kQ4_1)
        cases.push_back({isa, ComputeMode::kF32, dtype});
    }
  }
  return cases;
}

std::string NameOfCase(const testing::TestParamInfo<Case>& info) {
  return std::string(NameOf(info.param.isa)) +
         (info.param.mode == ComputeMode::kF32 ? "_exact_" : "_auto_") +
         std::string(InfoOf(info.param.dtype).name);
}

class GemmTest : public testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<PackedMatrix> Pack(std::span<const TensorView> parts) {
    auto packed = PackMatrixCpu(parts, GetParam().mode, GetParam().isa, nullptr);
    EXPECT_TRUE(packed.ok()) << packed.status();
    return *std::move(packed);
  }
  bool quantized() const {
    return GetParam().mode == ComputeMode::kAuto && InfoOf(GetParam().dtype).block_elements > 1;
  }
};

std::vector<float> Multiply(const GemmArgs& args, ActivationRows x, ThreadPool& pool,
                            float y_before = 0.0f) {
  std::vector<float> y(static_cast<size_t>(x.rows * args.weight->out()), y_before);
  GemmCpu(args, x, {y.data(), x.rows, args.weight->out(), args.weight->out()}, pool);
  return y;
}

struct Shape {
  int64_t rows, in, out;
};

// |y - exact| <= (in + 4) eps sum |x w|: a chain of `in` fp32 additions of rounded products, the
// bias and the sink. Block-quantised inputs differ from x by half a step of their block, sum |w|
// scale / 2, and that is counted too.
void ExpectNear(const std::vector<float>& y, const Stored& weight, const Inputs& x,
                const Shape& shape, bool round_weights, bool quantized, double addend) {
  std::vector<float> w(static_cast<size_t>(shape.in));
  for (int64_t column = 0; column < shape.out; ++column) {
    DecodeRow(weight.view(), column, w.data());
    for (int64_t row = 0; row < shape.rows; ++row) {
      double exact = addend, norm = std::fabs(addend), steps = 0, peak = 0;
      for (int64_t k = 0; k < shape.in; ++k) {
        const float wk =
            round_weights ? FromBf16(ToBf16(w[static_cast<size_t>(k)])) : w[static_cast<size_t>(k)];
        exact += static_cast<double>(x.At(row, k)) * wk;
        norm += std::fabs(static_cast<double>(x.At(row, k)) * wk);
        if (k % 32 == 0) {
          peak = 0;
          for (int64_t i = k; i < std::min(shape.in, k + 32); ++i)
            peak = std::max<double>(peak, std::fabs(x.At(row, i)));
        }
        steps += std::fabs(wk) * peak / 127.0 * 0.5;
      }
      const double eps = std::numeric_limits<float>::epsilon();
      double tolerance = static_cast<double>(shape.in + 4) * eps * norm;
      if (quantized)
        tolerance = steps * 1.001 + static_cast<double>(shape.in + 4) * eps * (norm + steps);
      // Q4_1 sums d*q and m apart, so its terms can be larger than |x w|.
      if (quantized && weight.dtype == DType::kQ4_1)
        tolerance += static_cast<double>(shape.in) * eps * 4 * (norm + 1);
      ASSERT_NEAR(y[static_cast<size_t>(row * shape.out + column)], exact, tolerance)
          << "row " << row << " column " << column << " of " << shape.rows << "x" << shape.in << "x"
          << shape.out;
    }
  }
}

TEST_P(GemmTest, RowBitsDependOnTheRowAlone) {
  const int64_t in = 192, out = 176, most = 512;
  const Stored weight = MakeStored(GetParam().dtype, out, in, 1);
  Inputs x = MakeInputs(GetParam().mode, most, in, 2);
  const TensorView part = weight.view();
  const auto packed = Pack({&part, 1});
  GemmArgs args;
  args.weight = packed.get();
  ThreadPool one(1), two(2);
  std::vector<float> alone;
  const int64_t limit = GetParam().isa == Isa::kScalar ? 128 : most;
  for (int64_t row = 0; row < limit; ++row) {
    const std::vector<float> y = Multiply(args, x.Rows(row, 1, in), one);
    alone.insert(alone.end(), y.begin(), y.end());
  }
  for (int64_t rows : {1, 2, 3, 7, 12, 16, 17, 31, 32, 33, 64, 100, 128, 512}) {
    if (rows > limit) continue;
    for (int64_t begin : {int64_t{0}, std::min<int64_t>(5, limit - rows), limit - rows}) {
      for (ThreadPool* pool : {&one, &two}) {
        const std::vector<float> y = Multiply(args, x.Rows(begin, rows, in), *pool);
        ASSERT_EQ(std::memcmp(y.data(), alone.data() + begin * out, y.size() * 4), 0)
            << rows << " rows from " << begin << ", " << pool->num_threads() << " threads";
      }
    }
  }
}

// Sums that underflow take the same way out on every path, and so do sinks that are subnormal
// already.
TEST_P(GemmTest, RowBitsHoldForSubnormalSums) {
  const int64_t in = 32, out = 48, rows = 40;
  const Stored weight = MakeStored(GetParam().dtype, out, in, 13);
  Inputs x = MakeInputs(GetParam().mode, rows, in, 14);
  for (float& value : x.full) value *= 1e-38f;
  for (size_t i = 0; i < x.half.size(); ++i) x.half[i] = ToBf16(x.full[i]);
  const TensorView part = weight.view();
  const auto packed = Pack({&part, 1});
  ThreadPool one(1);
  GemmArgs args;
  args.weight = packed.get();
  for (bool accumulate : {false, true}) {
    args.accumulate = accumulate;
    const std::vector<float> together = Multiply(args, x.Rows(0, rows, in), one, 3e-39f);
    for (int64_t row = 0; row < rows; ++row) {
      const std::vector<float> alone = Multiply(args, x.Rows(row, 1, in), one, 3e-39f);
      ASSERT_EQ(std::memcmp(alone.data(), together.data() + row * out, alone.size() * 4), 0)
          << "row " << row;
    }
  }
}

TEST_P(GemmTest, AgreesWithADoubleSum) {
  const std::vector<Shape> shapes =
      InfoOf(GetParam().dtype).block_elements > 1
          ? std::vector<Shape>{{1, 32, 1}, {2, 64, 17}, {5, 96, 33}, {33, 160, 70}, {3, 1536, 40}}
          : std::vector<Shape>{{1, 1, 1},    {2, 3, 5},     {3, 17, 16},   {16, 31, 17},
                               {17, 32, 31}, {33, 33, 32},  {5, 48, 80},   {7, 80, 320},
                               {40, 65, 33}, {2, 1537, 48}, {13, 576, 100}};
  ThreadPool two(2);
  for (const Shape& shape : shapes) {
    const Stored weight = MakeStored(GetParam().dtype, shape.out, shape.in, 3);
    Inputs x = MakeInputs(GetParam().mode, shape.rows, shape.in, 4);
    const TensorView part = weight.view();
    const auto packed = Pack({&part, 1});
    GemmArgs args;
    args.weight = packed.get();
    const bool rounds = GetParam().mode == ComputeMode::kAuto && !quantized();
    ExpectNear(Multiply(args, x.Rows(0, shape.rows, shape.in), two), weight, x, shape, rounds,
               quantized(), 0.0);
    const std::vector<float> bias(static_cast<size_t>(shape.out), 0.25f);
    args.bias = bias.data();
    args.accumulate = true;
    ExpectNear(Multiply(args, x.Rows(0, shape.rows, shape.in), two, 3.0f), weight, x, shape, rounds,
               quantized(), 3.25);
  }
}

TEST_P(GemmTest, BiasAndSinkAreAddedAfterTheSum) {
  const int64_t in = 96, out = 50, rows = 19;
  const Stored weight = MakeStored(GetParam().dtype, out, in, 5);
  Inputs x = MakeInputs(GetParam().mode, rows, in, 6);
  const TensorView part = weight.view();
  const auto packed = Pack({&part, 1});
  ThreadPool two(2);
  GemmArgs args;
  args.weight = packed.get();
  const std::vector<float> plain = Multiply(args, x.Rows(0, rows, in), two);
  std::vector<float> bias(static_cast<size_t>(out));
  for (size_t c = 0; c < bias.size(); ++c) bias[c] = 0.1f * static_cast<float>(c);
  args.bias = bias.data();
  args.accumulate = true;
  const std::vector<float> y = Multiply(args, x.Rows(0, rows, in), two, 1.5f);
  for (size_t i = 0; i < y.size(); ++i) ASSERT_EQ(y[i], 1.5f + (plain[i] + bias[i % bias.size()]));
}

TEST_P(GemmTest, StackedPartsAreOneMatrix) {
  const int64_t in = 64;
  const Stored a = MakeStored(GetParam().dtype, 37, in, 7),
               b = MakeStored(GetParam().dtype, 5, in, 8);
  Inputs x = MakeInputs(GetParam().mode, 4, in, 9);
  const TensorView parts[] = {a.view(), b.view()};
  const auto both = Pack(parts), first = Pack({parts, 1}), second = Pack({parts + 1, 1});
  ThreadPool one(1);
  GemmArgs args;
  args.weight = both.get();
  const std::vector<float> y = Multiply(args, x.Rows(0, 4, in), one);
  args.weight = first.get();
  const std::vector<float> y_first = Multiply(args, x.Rows(0, 4, in), one);
  args.weight = second.get();
  const std::vector<float> y_second = Multiply(args, x.Rows(0, 4, in), one);
  for (size_t row = 0; row < 4; ++row) {
    for (size_t c = 0; c < 37; ++c) ASSERT_EQ(y[row * 42 + c], y_first[row * 37 + c]);
    for (size_t c = 0; c < 5; ++c) ASSERT_EQ(y[row * 42 + 37 + c], y_second[row * 5 + c]);
  }
}

TEST_P(GemmTest, UnpackRowGivesTheWeightsBack) {
  const int64_t in = 96, out = 45;
  const Stored weight = MakeStored(GetParam().dtype, out, in, 10);
  const TensorView part = weight.view();
  const auto packed = Pack({&part, 1});
  std::vector<float> expected(static_cast<size_t>(in)), row(static_cast<size_t>(in));
  const bool rounds = GetParam().mode == ComputeMode::kAuto && !quantized();
  for (int64_t r = 0; r < out; ++r) {
    DecodeRow(weight.view(), r, expected.data());
    UnpackRow(*packed, r, row.data());
    for (size_t k = 0; k < row.size(); ++k) {
      ASSERT_EQ(row[k], rounds ? FromBf16(ToBf16(expected[k])) : expected[k])
          << "row " << r << " input " << k;
    }
  }
}

TEST_P(GemmTest, RowsAreWrittenOnlyWithinTheirColumns) {
  const int64_t in = 32, out = 21, rows = 18, stride = 40;
  const Stored weight = MakeStored(GetParam().dtype, out, in, 11);
  Inputs x = MakeInputs(GetParam().mode, rows, in, 12);
  const TensorView part = weight.view();
  const auto packed = Pack({&part, 1});
  ThreadPool one(1);
  GemmArgs args;
  args.weight = packed.get();
  std::vector<float> y(static_cast<size_t>(rows * stride), -7.0f);
  GemmCpu(args, x.Rows(0, rows, in), {y.data(), rows, out, stride}, one);
  for (size_t i = 0; i < y.size(); ++i) {
    if (static_cast<int64_t>(i) % stride >= out) {
      ASSERT_EQ(y[i], -7.0f);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsaAndFormat, GemmTest, testing::ValuesIn(Cases()), NameOfCase);

// Levels from AVX2 on share one arithmetic for quantised weights: exact dots, blocks in order.
class QuantizedLevelsTest : public testing::TestWithParam<std::tuple<Isa, DType>> {};

TEST_P(QuantizedLevelsTest, AgreeBitForBitWithAvx2) {
  const auto [isa, dtype] = GetParam();
  const int64_t in = 160, out = 75, rows = 41;
  const Stored weight = MakeStored(dtype, out, in, 21);
  Inputs x = MakeInputs(ComputeMode::kAuto, rows, in, 22);
  const TensorView part = weight.view();
  ThreadPool one(1);
  std::vector<std::vector<float>> results;
  for (Isa level : {Isa::kAvx2, isa}) {
    const auto packed = PackMatrixCpu({&part, 1}, ComputeMode::kAuto, level, nullptr);
    ASSERT_TRUE(packed.ok());
    GemmArgs args;
    args.weight = packed->get();
    results.push_back(Multiply(args, x.Rows(0, rows, in), one));
  }
  EXPECT_EQ(std::memcmp(results[0].data(), results[1].data(), results[0].size() * 4), 0);
}

std::vector<Isa> VectorLevels() {
  std::vector<Isa> levels = MachineIsas();
  std::erase_if(levels, [](Isa isa) { return isa < Isa::kAvx2; });
  return levels;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(QuantizedLevelsTest);
INSTANTIATE_TEST_SUITE_P(EveryLevel, QuantizedLevelsTest,
                         testing::Combine(testing::ValuesIn(VectorLevels()),
                                          testing::Values(DType::kQ8_0, DType::kQ4_0,
                                                          DType::kQ4_1)));

// The bf16 dot instruction is the choice on some machines with AVX-512 only, and must hold wherever
// it exists.
class Bf16DotTest : public testing::TestWithParam<Isa> {};

TEST_P(Bf16DotTest, AgreesWithADoubleSumAndKeepsARowsBits) {
  const Shape shape{37, 80, 75};
  const Stored weight = MakeStored(DType::kBF16, shape.out, shape.in, 31);
  Inputs x = MakeInputs(ComputeMode::kAuto, shape.rows, shape.in, 32);
  const TensorView part = weight.view();
  const auto packed = PackMatrixCpu({&part, 1}, ComputeMode::kAuto, GetParam(), nullptr);
  ASSERT_TRUE(packed.ok());
  const auto& matrix = static_cast<const CpuMatrix&>(**packed);
  const PanelKernel kernel = Avx512GemmKernels(true).bf16;
  const auto multiply = [&](int64_t begin, int64_t rows) {
    std::vector<float> y(static_cast<size_t>(rows * shape.out));
    PanelTask task;
    task.x = x.half.data() + begin * x.stride;
    task.x_stride = x.stride;
    task.rows = rows;
    task.depth = shape.in;
    task.panels = matrix.panel(0);
    task.panel_bytes = matrix.panel_bytes();
    task.columns = shape.out;
    task.y = y.data();
    task.y_stride = shape.out;
    kernel(task);
    return y;
  };
  const std::vector<float> together = multiply(0, shape.rows);
  ExpectNear(together, weight, x, shape, true, false, 0.0);
  for (int64_t row = 0; row < shape.rows; ++row) {
    const std::vector<float> alone = multiply(row, 1);
    ASSERT_EQ(std::memcmp(alone.data(), together.data() + row * shape.out, alone.size() * 4), 0)
        << "row " << row;
  }
}

std::vector<Isa> DotLevels() {
  return BestIsa() >= Isa::kAvx512 ? std::vector<Isa>{Isa::kAvx512} : std::vector<Isa>{};
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Bf16DotTest);
INSTANTIATE_TEST_SUITE_P(WhereItExists, Bf16DotTest, testing::ValuesIn(DotLevels()));

TEST(PackMatrixTest, RefusesPartsOfDifferentTypes) {
  const Stored a = MakeStored(DType::kF32, 4, 32, 1), b = MakeStored(DType::kBF16, 4, 32, 1);
  const TensorView parts[] = {a.view(), b.view()};
  const auto packed = PackMatrixCpu(parts, ComputeMode::kAuto, BestIsa(), nullptr);
  EXPECT_EQ(packed.status().code(), absl::StatusCode::kInvalidArgument) << packed.status();
}

TEST(PackMatrixTest, RefusesATypeThatIsNoWeight) {
  const int64_t numbers[4] = {1, 2, 3, 4};
  const TensorView part{numbers, DType::kI64, 2, 2};
  const auto packed = PackMatrixCpu({&part, 1}, ComputeMode::kAuto, BestIsa(), nullptr);
  EXPECT_EQ(packed.status().code(), absl::StatusCode::kInvalidArgument) << packed.status();
}

TEST(PackMatrixTest, PacksTheSameOnAPool) {
  const Stored a = MakeStored(DType::kBF16, 200, 70, 1);
  const TensorView part = a.view();
  ThreadPool two(2);
  const auto serial = PackMatrixCpu({&part, 1}, ComputeMode::kAuto, BestIsa(), nullptr);
  const auto parallel = PackMatrixCpu({&part, 1}, ComputeMode::kAuto, BestIsa(), &two);
  std::vector<float> x(70), y(70);
  for (int64_t row = 0; row < 200; ++row) {
    UnpackRow(**serial, row, x.data());
    UnpackRow(**parallel, row, y.data());
    ASSERT_EQ(x, y);
  }
}

}  // namespace
}  // namespace polyad::cpu
