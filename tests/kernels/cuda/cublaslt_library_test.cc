// How cuBLASLt is opened, asked and called: over libraries of the tests' own that hold each call to
// what NVIDIA's documentation says of it, and, where POLYAD_CUBLASLT names it, over the real one.

#include "kernels/cuda/cublaslt_library.h"

#include <cstdlib>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace polyad::cuda {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<CublasLtLibrary> OpenFake(int kind, std::string& wrong) {
  return CublasLtLibrary::Open(
      std::string(POLYAD_FAKE_LIBRARIES) + "/fake_cublaslt" + std::to_string(kind) + ".so", wrong);
}

std::string Refusal(int kind) {
  std::string wrong;
  EXPECT_EQ(OpenFake(kind, wrong), nullptr);
  return wrong;
}

TEST(CublasLtLibraryTest, SaysWhyALibraryCannotBeUsed) {
  std::string wrong;
  EXPECT_EQ(CublasLtLibrary::Open("libcublasLt.so.nowhere", wrong), nullptr);
  EXPECT_THAT(wrong, HasSubstr("libcublasLt.so.nowhere"));
  EXPECT_THAT(Refusal(1), HasSubstr("it has no cublasLtMatmul"));
  EXPECT_THAT(Refusal(2), HasSubstr("expected version 13 of cuBLASLt, got 12"));
  EXPECT_THAT(Refusal(3), HasSubstr("cublasLtCreate: the library was not initialized (1)"));
}

TEST(CublasLtLibraryTest, TellsOfAlgorithmsThatNeedNoMemory) {
  std::string wrong;
  const auto library = OpenFake(0, wrong);
  ASSERT_NE(library, nullptr) << wrong;
  EXPECT_EQ(library->name(), "cuBLASLt 13.1.0");
  const PlainShape shape{32, 80};
  const std::vector<MatmulAlgorithm> found = library->Candidates(shape, 64);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].words[0], 2u);
  EXPECT_EQ(found[0].splits, 2);
  EXPECT_EQ(found[0].reduction, 1u);
  EXPECT_EQ(found[1].words[0], 3u);
  EXPECT_EQ(found[1].words[7], 6u);
  EXPECT_EQ(found[1].splits, 1);
  EXPECT_EQ(found[1].reduction, 0u);
  EXPECT_TRUE(library->CanRun(shape, found[1], 1));
  EXPECT_TRUE(library->CanRun(shape, found[1], 89));
  EXPECT_FALSE(library->CanRun(shape, found[1], 90)) << "with memory to work in";
  EXPECT_FALSE(library->CanRun(shape, found[1], 101));
}

// Small whole numbers, which sums keep exactly; bf16 has them.
std::vector<simt::Bf16> WholeNumbers(int64_t count, int step) {
  std::vector<simt::Bf16> numbers;
  for (int64_t i = 0; i < count; ++i) {
    numbers.push_back(simt::ToBf16(static_cast<float>(i * step % 17 - 8)));
  }
  return numbers;
}

TEST(CublasLtLibraryTest, TheProductIsOfEachRowByEachRowOfTheWeight) {
  std::string wrong;
  const auto library = OpenFake(0, wrong);
  ASSERT_NE(library, nullptr) << wrong;
  const PlainShape shape{32, 48};
  constexpr int64_t kRows = 3;
  constexpr int64_t kXStride = 64;
  constexpr int64_t kYStride = 40;
  const std::vector<simt::Bf16> weight = WholeNumbers(shape.out * shape.in, 5);
  const std::vector<simt::Bf16> x = WholeNumbers(kRows * kXStride, 3);
  std::vector<float> y(kRows * kYStride, 100.0f);
  const MatmulAlgorithm algorithm = library->Candidates(shape, 64)[1];
  for (const bool accumulate : {false, true}) {
    const MatmulCall call{shape,    weight.data(), x.data(), kXStride,
                          y.data(), kYStride,      kRows,    accumulate};
    ASSERT_EQ(library->Multiply(call, algorithm, nullptr), "");
    for (int64_t t = 0; t < kRows; ++t) {
      for (int64_t o = 0; o < kYStride; ++o) {
        float want = 0.0f;
        for (int64_t i = 0; o < shape.out && i < shape.in; ++i) {
          want += simt::ToFloat(weight[static_cast<size_t>(o * shape.in + i)]) *
                  simt::ToFloat(x[static_cast<size_t>(t * kXStride + i)]);
        }
        want = o >= shape.out ? 100.0f : accumulate ? 2 * want : want;
        ASSERT_EQ(y[static_cast<size_t>(t * kYStride + o)], want) << "row " << t << " output " << o;
      }
    }
  }
}

TEST(CublasLtLibraryTest, ACallThatTheLibraryRefusesIsSaid) {
  std::string wrong;
  const auto library = OpenFake(0, wrong);
  ASSERT_NE(library, nullptr) << wrong;
  MatmulCall call;
  call.shape = {16, 32};
  call.x_stride = 16;  // shorter than a row
  call.y_stride = 16;
  call.rows = 1;
  EXPECT_EQ(library->Multiply(call, {}, nullptr), "cublasLtMatmul: another status (7)");
}

// Every function is found; without a driver the library says so, with one it is ready.
TEST(CublasLtLibraryTest, TheRealLibraryOpensOrSaysThatThereIsNoDevice) {
  const char* path = std::getenv("POLYAD_CUBLASLT");
  if (path == nullptr) GTEST_SKIP() << "POLYAD_CUBLASLT names no library";
  std::string wrong;
  const auto library = CublasLtLibrary::Open(path, wrong);
  if (library == nullptr) {
    EXPECT_THAT(wrong, HasSubstr(": cublasLtCreate: "));
  } else {
    EXPECT_THAT(library->name(), HasSubstr("cuBLASLt 13."));
  }
  RecordProperty("said", library == nullptr ? wrong : library->name());
}

}  // namespace
}  // namespace polyad::cuda
