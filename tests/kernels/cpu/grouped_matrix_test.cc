#include "kernels/cpu/grouped_matrix.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/number_format.h"

// A quantised matrix multiplies bf16 inputs, bit for bit, as the bf16 matrix of what its codes
// stand for, on every instruction set, and is not held as one. Integer codes that meet int8 inputs
// stay within what rounding the inputs may do.

namespace polyad::cpu {
namespace {

enum class Form { kInt4, kInt4Zeros, kQ4_K, kQ2_K, kQ6_K, kInt8Rows, kLevels, kFloat8, kActOrder };

struct FormName {
  Form form;
  const char* name;
  double most_bits;  // a weight may take in memory
};

constexpr FormName kForms[] = {
    {Form::kInt4, "int4", 4.6},        {Form::kInt4Zeros, "int4_zeros", 5.1},
    {Form::kQ4_K, "q4_k", 4.7},        {Form::kQ2_K, "q2_k", 5.2},
    {Form::kQ6_K, "q6_k", 8.6},        {Form::kInt8Rows, "int8_rows", 8.1},
    {Form::kLevels, "levels", 4.6},    {Form::kFloat8, "float8", 8.1},
    {Form::kActOrder, "act_order", 6},
};

float ScaleFrom(std::mt19937& random, bool f16) {
  const float scale = 0.003f + 0.0001f * static_cast<float>(random() % 100);
  const auto bits = std::bit_cast<uint32_t>(scale);
  return f16 ? std::bit_cast<float>(bits & 0xffffe000u) : scale;
}

void FillFactored(GroupedRows& made, int64_t groups, bool minima, std::mt19937& random) {
  made.groups_per_super = groups;
  made.scale_factors.resize(made.scales.size());
  if (minima) made.minimum_factors.resize(made.scales.size());
  made.scales.resize(made.scales.size() / static_cast<size_t>(groups));
  if (minima) made.minima.resize(made.scales.size());
  for (int8_t& factor : made.scale_factors) factor = static_cast<int8_t>(random() % 256);
  for (int8_t& factor : made.minimum_factors) factor = static_cast<int8_t>(random() % 64);
  for (float& minimum : made.minima) minimum = -ScaleFrom(random, true);
}

int64_t GroupOfForm(Form form, int64_t in) {
  if (form == Form::kQ2_K || form == Form::kQ6_K) return 16;
  if (form == Form::kInt8Rows || form == Form::kFloat8) return in;
  return form == Form::kLevels ? 64 : 32;
}

GroupedRows Make(Form form, int64_t out, int64_t in, uint32_t seed) {
  std::mt19937 random(seed);
  GroupedRows made = MakeGroupedRows(out, in, GroupOfForm(form, in));
  const bool bytes = form == Form::kQ6_K || form == Form::kInt8Rows || form == Form::kFloat8;
  made.bits = bytes ? 8 : 4;
  made.zero = bytes ? 128.0f : 8.0f;
  if (form == Form::kQ4_K) FillFactored(made, 8, true, random);
  if (form == Form::kQ2_K) FillFactored(made, 16, true, random);
  if (form == Form::kQ6_K) FillFactored(made, 16, false, random);
  const bool f16 = form != Form::kInt8Rows && form != Form::kLevels && form != Form::kFloat8;
  for (float& scale : made.scales) scale = ScaleFrom(random, f16);
  if (form == Form::kInt4Zeros || form == Form::kActOrder) {
    made.zeros.resize(made.scales.size());
    for (float& zero : made.zeros) zero = static_cast<float>(random() % 17);
  }
  if (form == Form::kLevels) {
    made.kind = CodeKind::kLevels;
    for (float& level : made.levels) level = static_cast<float>(random() % 1000) * 0.002f - 1.0f;
  }
  if (form == Form::kFloat8) made.kind = CodeKind::kFloat8;
  if (form == Form::kActOrder) {
    for (int64_t k = 0; k < in; ++k) {
      made.group_of.push_back(static_cast<uint16_t>(random() % static_cast<uint32_t>(in / 32)));
    }
  }
  for (uint8_t& code : made.codes) {
    code = static_cast<uint8_t>(random() % (bytes ? 256 : 16));
    if (form == Form::kFloat8 && (code & 0x7f) == 0x7f) code = 0;
  }
  return made;
}

TensorView ViewOf(const GroupedRows& made) {
  return {nullptr, DType::kGrouped, made.rows, made.cols, &made};
}

std::vector<uint16_t> AsBf16(const GroupedRows& made) {
  std::vector<float> row(static_cast<size_t>(made.cols));
  std::vector<uint16_t> all;
  for (int64_t r = 0; r < made.rows; ++r) {
    DequantizeRow(made, r, row.data());
    for (float value : row) all.push_back(ToBf16(value));
  }
  return all;
}

std::vector<uint16_t> MakeInputs(int64_t rows, int64_t cols) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> x(static_cast<size_t>(rows * cols));
  for (uint16_t& value : x) value = ToBf16(normal(random));
  return x;
}

std::unique_ptr<PackedMatrix> Pack(std::span<const TensorView> parts, Isa isa) {
  auto packed = PackMatrixCpu(parts, ComputeMode::kBF16, isa, nullptr);
  EXPECT_TRUE(packed.ok()) << packed.status();
  return *std::move(packed);
}

std::vector<float> Multiply(const PackedMatrix& weight, std::vector<uint16_t>& x, int64_t begin,
                            int64_t rows) {
  ThreadPool two(2);
  std::vector<float> bias(static_cast<size_t>(weight.out()), 0.5f);
  std::vector<float> y(static_cast<size_t>(rows * weight.out()), 1.25f);
  const GemmArgs args{&weight, bias.data(), true, {}};
  GemmCpu(args, {x.data() + begin * weight.in(), DType::kBF16, rows, weight.in(), weight.in()},
          {y.data(), rows, weight.out(), weight.out()}, two);
  return y;
}

class GroupedMatrixTest : public testing::TestWithParam<std::tuple<Isa, FormName>> {
 protected:
  Isa isa() const { return std::get<0>(GetParam()); }
  Form form() const { return std::get<1>(GetParam()).form; }
};

TEST_P(GroupedMatrixTest, MultipliesAsTheBf16MatrixOfItsValues) {
  const int64_t out = 77, in = 512, most = 40;
  const GroupedRows made = Make(form(), out, in, 1);
  const std::vector<uint16_t> values = AsBf16(made);
  const TensorView grouped = ViewOf(made);
  const TensorView plain{values.data(), DType::kBF16, out, in};
  const auto quantised = Pack({&grouped, 1}, isa());
  const auto expected = Pack({&plain, 1}, isa());
  std::vector<uint16_t> x = MakeInputs(most, in);
  for (int64_t rows : {int64_t{1}, int64_t{3}, int64_t{17}, most}) {
    const std::vector<float> got = Multiply(*quantised, x, most - rows, rows);
    const std::vector<float> wanted = Multiply(*expected, x, most - rows, rows);
    ASSERT_EQ(std::memcmp(got.data(), wanted.data(), got.size() * 4), 0) << rows << " rows";
  }
}

TEST_P(GroupedMatrixTest, RowsComeBackAsBf16) {
  const int64_t out = 45, in = 256;
  const GroupedRows made = Make(form(), out, in, 2);
  const std::vector<uint16_t> values = AsBf16(made);
  const TensorView grouped = ViewOf(made);
  const auto packed = Pack({&grouped, 1}, isa());
  std::vector<float> row(static_cast<size_t>(in));
  for (int64_t r = 0; r < out; ++r) {
    UnpackRow(*packed, r, row.data());
    for (int64_t k = 0; k < in; ++k) {
      ASSERT_EQ(row[static_cast<size_t>(k)], FromBf16(values[static_cast<size_t>(r * in + k)]))
          << "row " << r << " input " << k;
    }
  }
}

TEST_P(GroupedMatrixTest, IsHeldInItsOwnPrecision) {
  const int64_t out = 256, in = 2048;
  const GroupedRows made = Make(form(), out, in, 3);
  const TensorView grouped = ViewOf(made);
  const auto packed = Pack({&grouped, 1}, isa());
  EXPECT_LE(static_cast<double>(packed->bytes().total()) * 8 / static_cast<double>(out * in),
            std::get<1>(GetParam()).most_bits);
  const Precision codes = made.bits == 4 ? Precision::k4Bit : Precision::k8Bit;
  EXPECT_GE(packed->bytes()[codes], out * in * made.bits / 8);
  EXPECT_EQ(packed->bytes()[Precision::kBF16], 0);
}

TEST_P(GroupedMatrixTest, StacksWithPartsOfOtherTypes) {
  const int64_t in = 256;
  const GroupedRows first = Make(form(), 40, in, 4);
  const GroupedRows second = Make(Form::kQ6_K, 33, in, 5);
  const std::vector<uint16_t> third = AsBf16(Make(Form::kInt4, 17, in, 6));
  std::vector<uint8_t> fourth(static_cast<size_t>(20 * RowBytes(DType::kQ4_1, in)), 0x21);
  const TensorView parts[] = {ViewOf(first),
                              ViewOf(second),
                              {third.data(), DType::kBF16, 17, in},
                              {fourth.data(), DType::kQ4_1, 20, in}};
  std::vector<uint16_t> values = AsBf16(first);
  for (const std::vector<uint16_t>& more : {AsBf16(second), third}) {
    values.insert(values.end(), more.begin(), more.end());
  }
  const float d = FromF16(0x2121);
  for (int64_t i = 0; i < 20 * in; ++i) values.push_back(ToBf16(d * (i % 32 < 16 ? 1 : 2) + d));
  const TensorView plain{values.data(), DType::kBF16, 110, in};
  const auto quantised = Pack(parts, isa());
  const auto expected = Pack({&plain, 1}, isa());
  std::vector<uint16_t> x = MakeInputs(6, in);
  EXPECT_EQ(Multiply(*quantised, x, 0, 6), Multiply(*expected, x, 0, 6));
  std::vector<float> got(static_cast<size_t>(in)), wanted(got.size());
  for (int64_t row : {0, 39, 40, 72, 73, 89, 90, 109}) {
    UnpackRow(*quantised, row, got.data());
    UnpackRow(*expected, row, wanted.data());
    EXPECT_EQ(got, wanted) << "row " << row;
  }
}

TEST_P(GroupedMatrixTest, ProductsOfSomeRowsAreThoseOfTheWhole) {
  const int64_t in = 256;
  const GroupedRows parts[] = {Make(form(), 40, in, 8), Make(Form::kQ6_K, 33, in, 9)};
  const TensorView views[] = {ViewOf(parts[0]), ViewOf(parts[1])};
  const auto matrix = Pack(views, isa());
  std::vector<uint16_t> x = MakeInputs(5, in);
  ThreadPool one(1);
  std::vector<float> whole(5 * 73);
  const ActivationRows inputs{x.data(), DType::kBF16, 5, in, in};
  GemmCpu({matrix.get(), nullptr, false, {}}, inputs, {whole.data(), 5, 73, 73}, one);
  for (const auto& [first, rows] :
       {std::pair<int64_t, int64_t>{0, 73}, {3, 20}, {35, 10}, {72, 1}}) {
    std::vector<float> some(static_cast<size_t>(5 * rows));
    ProductOfRowsCpu(*matrix, first, inputs, {some.data(), 5, rows, rows});
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t o = 0; o < rows; ++o) {
        ASSERT_EQ(some[static_cast<size_t>(t * rows + o)],
                  whole[static_cast<size_t>(t * 73 + first + o)]);
      }
    }
  }
}

TEST_P(GroupedMatrixTest, ExactModeHoldsWhatTheCodesStandFor) {
  const GroupedRows made = Make(form(), 9, 256, 7);
  const TensorView grouped = ViewOf(made);
  const auto packed = PackMatrixCpu({&grouped, 1}, ComputeMode::kF32, isa(), nullptr);
  ASSERT_TRUE(packed.ok()) << packed.status();
  std::vector<float> row(256), expected(256);
  for (int64_t r = 0; r < 9; ++r) {
    UnpackRow(**packed, r, row.data());
    DequantizeRow(made, r, expected.data());
    EXPECT_EQ(row, expected);
  }
}

// Forms whose codes meet int8 inputs where inputs may be.
constexpr FormName kIntegerForms[] = {kForms[0], kForms[1], kForms[2],
                                      kForms[3], kForms[4], kForms[5]};

class IntegerMatrixTest : public testing::TestWithParam<std::tuple<Isa, FormName>> {
 protected:
  std::unique_ptr<PackedMatrix> PackIntegers(const GroupedRows& made, Isa isa) {
    const TensorView view = ViewOf(made);
    auto packed = PackMatrixCpu({&view, 1}, ComputeMode::kAuto, isa, nullptr);
    EXPECT_TRUE(packed.ok()) << packed.status();
    return *std::move(packed);
  }
  Isa isa() const { return std::get<0>(GetParam()); }
  Form form() const { return std::get<1>(GetParam()).form; }
};

// Rounding an input moves it by at most half a step of its block, peak / 254, and a product's sum
// by the weights' magnitudes times that; fp32 sums add their own error, of codes and of minima.
TEST_P(IntegerMatrixTest, IsWithinWhatRoundingInputsMayDo) {
  const int64_t out = 45, in = 512, rows = 21;
  const GroupedRows made = Make(form(), out, in, 10);
  const auto matrix = PackIntegers(made, isa());
  std::vector<uint16_t> x = MakeInputs(rows, in);
  const std::vector<float> y = Multiply(*matrix, x, 0, rows);
  std::vector<float> w(static_cast<size_t>(in));
  for (int64_t o = 0; o < out; ++o) {
    DequantizeRow(made, o, w.data());
    for (int64_t t = 0; t < rows; ++t) {
      double exact = 1.75, bound = 0, terms = 0;
      for (int64_t block = 0; block < in; block += 32) {
        double peak = 0, weights = 0;
        for (int64_t k = block; k < block + 32; ++k) {
          const double input = FromBf16(x[static_cast<size_t>(t * in + k)]);
          const auto group = static_cast<size_t>(o * made.num_groups + made.GroupOf(k));
          const double minimum = made.minima.empty() ? 0.0 : made.MinimumOf(group);
          exact += input * w[static_cast<size_t>(k)];
          peak = std::max(peak, std::fabs(input));
          weights += std::fabs(w[static_cast<size_t>(k)]);
          terms +=
              std::fabs(input) * (std::fabs(w[static_cast<size_t>(k)]) + 2 * std::fabs(minimum) +
                                  17.0 * std::fabs(made.ScaleOf(group)));
        }
        bound += peak / 254 * 1.01 * weights;
      }
      ASSERT_NEAR(y[static_cast<size_t>(t * out + o)], exact, bound + 64 * 0x1p-24 * terms)
          << "row " << t << " output " << o;
    }
  }
}

TEST_P(IntegerMatrixTest, RowBitsDependOnTheRowAlone) {
  const int64_t out = 77, in = 512, most = 53;
  const auto matrix = PackIntegers(Make(form(), out, in, 11), isa());
  std::vector<uint16_t> x = MakeInputs(most, in);
  std::vector<float> alone;
  for (int64_t row = 0; row < most; ++row) {
    const std::vector<float> y = Multiply(*matrix, x, row, 1);
    alone.insert(alone.end(), y.begin(), y.end());
  }
  for (int64_t rows : {2, 3, 5, 12, 16, 17, 33, 53}) {
    for (int64_t begin : {int64_t{0}, most - rows}) {
      const std::vector<float> y = Multiply(*matrix, x, begin, rows);
      ASSERT_EQ(std::memcmp(y.data(), alone.data() + begin * out, y.size() * 4), 0)
          << rows << " rows from " << begin;
    }
  }
}

TEST_P(IntegerMatrixTest, LevelsFromAvx2OnAgreeBitForBit) {
  if (isa() < Isa::kAvx2) return;  // the plain one rounds its sums twice
  const int64_t out = 45, in = 256, rows = 23;
  const GroupedRows made = Make(form(), out, in, 12);
  std::vector<uint16_t> x = MakeInputs(rows, in);
  EXPECT_EQ(Multiply(*PackIntegers(made, isa()), x, 0, rows),
            Multiply(*PackIntegers(made, Isa::kAvx2), x, 0, rows));
}

TEST_P(IntegerMatrixTest, RowsComeBackAsTheirCodesStandForThem) {
  const GroupedRows made = Make(form(), 40, 256, 13);
  const auto matrix = PackIntegers(made, isa());
  std::vector<float> row(256), expected(256);
  for (int64_t r : {0, 15, 16, 31, 32, 39}) {
    UnpackRow(*matrix, r, row.data());
    DequantizeRow(made, r, expected.data());
    EXPECT_EQ(row, expected) << "row " << r;
  }
}

TEST_P(IntegerMatrixTest, PartsOfSeveralFormsAreOneMatrix) {
  const int64_t in = 256;
  const GroupedRows parts[] = {Make(form(), 40, in, 14), Make(Form::kQ6_K, 33, in, 15),
                               Make(Form::kInt4, 20, in, 16)};
  const TensorView views[] = {ViewOf(parts[0]), ViewOf(parts[1]), ViewOf(parts[2])};
  const auto whole = PackMatrixCpu(views, ComputeMode::kAuto, isa(), nullptr);
  ASSERT_TRUE(whole.ok()) << whole.status();
  std::vector<uint16_t> x = MakeInputs(6, in);
  const std::vector<float> together = Multiply(**whole, x, 0, 6);
  size_t first = 0;
  for (const GroupedRows& part : parts) {
    const std::vector<float> alone = Multiply(*PackIntegers(part, isa()), x, 0, 6);
    const auto width = static_cast<size_t>(part.rows);
    for (size_t i = 0; i < alone.size(); ++i) {
      ASSERT_EQ(together[i / width * 93 + first + i % width], alone[i]);
    }
    first += width;
  }
}

std::vector<Isa> MachineIsas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa <= BestIsa()) isas.push_back(isa);
  }
  return isas;
}

INSTANTIATE_TEST_SUITE_P(EveryIsaAndForm, GroupedMatrixTest,
                         testing::Combine(testing::ValuesIn(MachineIsas()),
                                          testing::ValuesIn(kForms)),
                         [](const auto& test) {
                           return std::string(NameOf(std::get<0>(test.param))) + "_" +
                                  std::get<1>(test.param).name;
                         });

INSTANTIATE_TEST_SUITE_P(EveryIsaAndForm, IntegerMatrixTest,
                         testing::Combine(testing::ValuesIn(MachineIsas()),
                                          testing::ValuesIn(kIntegerForms)),
                         [](const auto& test) {
                           return std::string(NameOf(std::get<0>(test.param))) + "_" +
                                  std::get<1>(test.param).name;
                         });

TEST(GroupedMatrix, RefusesInputsThatAreNoWholeBlocks) {
  const GroupedRows made = Make(Form::kInt4, 4, 48, 1);
  const TensorView grouped = ViewOf(made);
  const auto packed = PackMatrixCpu({&grouped, 1}, ComputeMode::kAuto, BestIsa(), nullptr);
  EXPECT_EQ(packed.status().code(), absl::StatusCode::kInvalidArgument) << packed.status();
}

TEST(GroupedMatrix, RefusesGroupsThatSplitAHalfBlock) {
  GroupedRows made = MakeGroupedRows(4, 64, 8);
  const TensorView grouped = ViewOf(made);
  const auto packed = PackMatrixCpu({&grouped, 1}, ComputeMode::kAuto, BestIsa(), nullptr);
  EXPECT_EQ(packed.status().code(), absl::StatusCode::kInvalidArgument) << packed.status();
}

TEST(Float8, IsE4M3WithItsSubnormalsAndNoInfinity) {
  EXPECT_EQ(Float8ToFloat(0x38), 1.0f);
  EXPECT_EQ(Float8ToFloat(0xc0), -2.0f);
  EXPECT_EQ(Float8ToFloat(0x7e), 448.0f);
  EXPECT_EQ(Float8ToFloat(0x01), 0x1p-9f);
  EXPECT_EQ(Float8ToFloat(0x08), 0x1p-6f);
  EXPECT_TRUE(std::isnan(Float8ToFloat(0x7f)));
  EXPECT_TRUE(std::isnan(Float8ToFloat(0xff)));
}

}  // namespace
}  // namespace polyad::cpu
