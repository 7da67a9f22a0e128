// Base weights multiplied by a library: which of its algorithms is taken, what becomes of a library
// that does not keep a row's bits, and every call of a weight that is stored for one. The library
// is a fake on the emulated device. covers: kernels/cuda/plain_matrix.cc

#include "kernels/cuda/plain_products.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/reference/reference_backend.h"
#include "tests/kernels/cuda/conformance.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/cuda/fake_matmuls.h"
#include "tests/kernels/cuda/staged_backend.h"
#include "tests/kernels/cuda/weight_products.h"
#include "tests/kernels/op_inputs.h"

namespace polyad::test {
namespace {

using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::HasSubstr;

constexpr int64_t kIn = 192;
constexpr int64_t kOut = 70;
constexpr int64_t kMostRows = 64;

// A backend with a library, and what became of one weight.
struct WithLibrary {
  explicit WithLibrary(std::vector<FakeWay> ways, ComputeMode mode = ComputeMode::kAuto,
                       bool guarded = false)
      : backend(mode, {}, guarded, FakeProducts(std::move(ways), kMostRows, library)) {}

  FakeMatmuls* library = nullptr;
  EmulatedBackend backend;
};

std::vector<FakeWay> OneGoodWay() { return {FakeWay()}; }

StoredWeight Bf16Weight() { return MakeWeight(DType::kBF16, kOut, kIn, 3); }

TEST(PlainProductsTest, TheFirstAlgorithmThatKeepsEveryPromiseIsTaken) {
  WithLibrary with(
      {{.splits = 2}, {.reduction = 1}, {.most_rows = 63}, {.same_bits_to = 40}, {}, {}});
  const WeightProduct product = ProductOf(with.backend, Bf16Weight(), 5);
  EXPECT_THAT(with.library->calls(), ElementsAre(0, 0, 0, Gt(0), Gt(0), 0));
  EXPECT_EQ(with.backend.info().isa, "emulated, fake 1.0 for 1 of 1 weight shapes");
  EXPECT_EQ(product.values.size(), static_cast<size_t>(5 * kOut));
  EXPECT_EQ(with.backend.fault(), "");
}

TEST(PlainProductsTest, AShapeWhoseRowsDifferInBatchesStaysWithOwnKernels) {
  for (const int64_t same_bits_to : {1, 2, 16, 63}) {
    WithLibrary with(std::vector<FakeWay>{{.same_bits_to = same_bits_to}});
    EmulatedBackend own(ComputeMode::kAuto, {});
    EXPECT_EQ(ProductOf(with.backend, Bf16Weight(), 70).values,
              ProductOf(own, Bf16Weight(), 70).values)
        << "not the bits of own kernels";
    EXPECT_THAT(with.backend.info().isa,
                HasSubstr("fake 1.0 for 0 of 1 weight shapes; own kernels for [80, 192]: a row's "
                          "bits differ alone and among "));
    const int64_t tried = with.library->calls()[0];
    EXPECT_GT(tried, 0);
    ProductOf(with.backend, Bf16Weight(), 3);
    EXPECT_EQ(with.library->calls()[0], tried) << "a shape is tried once";
  }
}

TEST(PlainProductsTest, WhyAShapeIsRefusedIsSaid) {
  const auto said = [](std::vector<FakeWay> ways, const StoredWeight& weight) {
    WithLibrary with(std::move(ways));
    ProductOf(with.backend, weight, 1);
    return with.backend.info().isa;
  };
  EXPECT_THAT(said({}, Bf16Weight()), HasSubstr("the library has no algorithm for it"));
  EXPECT_THAT(said({{.splits = 2}}, Bf16Weight()), HasSubstr("sums are made in parts"));
  EXPECT_THAT(said({{.most_rows = 40}}, Bf16Weight()), HasSubstr("does not run it for 41 rows"));
  StoredWeight zeros = Bf16Weight();
  std::fill(zeros.bytes.begin(), zeros.bytes.end(), 0);
  std::fill(zeros.values.begin(), zeros.values.end(), 0.0f);
  EXPECT_THAT(said(OneGoodWay(), zeros), HasSubstr("products are all zero, which shows nothing"));
}

TEST(PlainProductsTest, ARowsBitsAreTheSameAloneAndAmongMoreThanACallTakes) {
  WithLibrary with(OneGoodWay());
  const WeightProduct together = ProductOf(with.backend, Bf16Weight(), 3 * kMostRows + 7);
  EXPECT_EQ(with.library->rows(), kMostRows);
  for (const int64_t row : {int64_t{0}, int64_t{63}, int64_t{64}, 3 * kMostRows + 6}) {
    const WeightProduct alone = ProductOf(with.backend, Bf16Weight(), 1, row);
    for (int64_t o = 0; o < kOut; ++o) {
      ASSERT_EQ(alone.values[static_cast<size_t>(o)],
                together.values[static_cast<size_t>(row * kOut + o)])
          << "row " << row << " output " << o;
    }
  }
}

bool ReadsABaseWeight(const OpCase& op) {
  return op.name.starts_with("gemm") || op.name.starts_with("embed") ||
         op.name.starts_with("product_of_rows");
}

// Aligned rows and others, biases, sums into y, parts of the outputs, weights of every kind: with
// device memory out of the host's reach.
TEST(PlainProductsTest, EveryCallOfAWeightIsWithinItsTolerance) {
  WithLibrary with(OneGoodWay(), ComputeMode::kAuto, /*guarded=*/true);
  StagedBackend backend(with.backend);
  ref::ReferenceBackend reference(ComputeMode::kAuto);
  int64_t cases = 0;
  for (const OpCase& op : ConformanceCases()) {
    if (!ReadsABaseWeight(op)) continue;
    const int64_t calls = with.library->calls()[0];
    ExpectConforms(op, backend, reference);
    if (testing::Test::HasFatalFailure()) return;
    if (op.name.starts_with("gemm_bf16")) {
      EXPECT_GT(with.library->calls()[0], calls) << op.name;
    }
    ++cases;
  }
  EXPECT_GT(cases, 40);
  EXPECT_EQ(with.backend.fault(), "");
}

// 96 outputs lie as the library writes them, 70 do not.
TEST(PlainProductsTest, ProductsAreWrittenInPlaceOrThroughMemoryOfTheCall) {
  WithLibrary with(OneGoodWay());
  EmulatedBackend own(ComputeMode::kAuto, {});
  for (const int64_t out : {int64_t{96}, kOut}) {
    const StoredWeight weight = MakeWeight(DType::kBF16, out, kIn, 3);
    const WeightProduct got = ProductOf(with.backend, weight, 9);
    const WeightProduct want = ProductOf(own, weight, 9);
    for (size_t i = 0; i < want.values.size(); ++i) {
      ASSERT_NEAR(got.values[i], want.values[i], want.tolerance[i]) << out << " outputs, " << i;
    }
  }
}

TEST(PlainProductsTest, AWeightIsStoredForTheLibraryOrForOwnKernelsNotForBoth) {
  WithLibrary with(OneGoodWay());
  const StoredWeight weight = Bf16Weight();
  const TensorView view = weight.view();
  const TensorView parts[] = {view, view};
  const auto packed = with.backend.PackMatrix(parts);
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_EQ((*packed)->out(), 2 * kOut);
  EXPECT_EQ((*packed)->bytes(), PrecisionBytes(Precision::kBF16, 144 * kIn * 2));
}

TEST(PlainProductsTest, CodesAndTheExactModeHaveOwnKernels) {
  WithLibrary codes(OneGoodWay());
  ProductOf(codes.backend, MakeCoded("groups", kOut, kIn), 3);
  EXPECT_EQ(codes.library->calls()[0], 0);
  EXPECT_EQ(codes.backend.info().isa, "emulated, fake 1.0 for 0 of 0 weight shapes");
  WithLibrary exact(OneGoodWay(), ComputeMode::kF32);
  ProductOf(exact.backend, Bf16Weight(), 3);
  EXPECT_EQ(exact.library->calls()[0], 0);
}

}  // namespace
}  // namespace polyad::test
