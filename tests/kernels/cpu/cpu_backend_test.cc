// Row ops of the CPU backend: a row's bits are the same alone and among others, on one thread and
// on several.

#include "kernels/cpu/cpu_backend.h"

#include <cstring>
#include <functional>
#include <random>
#include <string>

#include "gtest/gtest.h"

namespace polyad::cpu {
namespace {

constexpr int64_t kRows = 70;
constexpr int64_t kCols = 1037;

std::vector<float> RandomRows(int64_t count) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

using RowOp = std::function<void(CpuBackend&, FloatRows, ActivationRows)>;

std::vector<char> RunOn(CpuBackend& backend, const RowOp& op, FloatRows x, int64_t cols) {
  const DType dtype = backend.activation_dtype();
  std::vector<char> out(static_cast<size_t>(x.rows * RowBytes(dtype, cols)));
  op(backend, x, {out.data(), dtype, x.rows, cols, cols});
  return out;
}

void ExpectRowsIndependent(const RowOp& op, int64_t x_cols, int64_t y_cols) {
  std::vector<float> values = RandomRows(kRows * x_cols);
  const FloatRows x{values.data(), kRows, x_cols, x_cols};
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (isa > BestIsa()) continue;
    const std::string name(NameOf(isa));
    for (ComputeMode mode : {ComputeMode::kF32, ComputeMode::kAuto}) {
      const auto one = *CpuBackend::Create({mode, 1, name});
      const auto three = *CpuBackend::Create({mode, 3, name});
      const std::vector<char> together = RunOn(*three, op, x, y_cols);
      std::vector<char> alone;
      for (int64_t row = 0; row < kRows; ++row) {
        const std::vector<char> bytes = RunOn(*one, op, x.Slice(row, row + 1), y_cols);
        alone.insert(alone.end(), bytes.begin(), bytes.end());
      }
      EXPECT_TRUE(together == alone) << name;
    }
  }
}

TEST(CpuBackendTest, ANormedRowDoesNotDependOnItsMates) {
  const std::vector<float> weight = RandomRows(kCols);
  for (NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
    const NormArgs args{kind, 1e-5f, weight.data(), weight.data()};
    ExpectRowsIndependent(
        [&](CpuBackend& backend, FloatRows x, ActivationRows y) { backend.Norm(args, x, y); },
        kCols, kCols);
  }
}

TEST(CpuBackendTest, AnActivatedRowDoesNotDependOnItsMates) {
  for (ActivationKind kind : {ActivationKind::kSilu, ActivationKind::kGeluTanh,
                              ActivationKind::kGeluErf, ActivationKind::kRelu}) {
    ExpectRowsIndependent([&](CpuBackend& backend, FloatRows x,
                              ActivationRows y) { backend.Activate(kind, true, x, y); },
                          2 * kCols, kCols);
  }
}

TEST(CpuBackendTest, ActivationsStayFiniteAtTheEndsOfTheRange) {
  std::vector<float> x = {-1e30f, -200.0f, -88.5f, 88.5f, 200.0f, 1e30f};
  std::vector<float> y(x.size());
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (isa > BestIsa()) continue;
    const auto backend = *CpuBackend::Create({ComputeMode::kF32, 1, std::string(NameOf(isa))});
    for (ActivationKind kind : {ActivationKind::kSilu, ActivationKind::kGeluErf}) {
      backend->Activate(kind, false, {x.data(), 1, 6, 6}, {y.data(), DType::kF32, 1, 6, 6});
      for (size_t i = 0; i < 3; ++i)
        EXPECT_NEAR(y[i], 0.0f, 1e-6f) << NameOf(isa) << " at " << x[i];
      for (size_t i = 3; i < 6; ++i) EXPECT_EQ(y[i], x[i]) << NameOf(isa);
    }
  }
}

TEST(CpuBackendTest, ArgMaxGivesAValidTokenWhateverTheLogits) {
  const float nan = std::nanf("");
  std::vector<float> logits = {nan, nan, nan, 1, nan, 2, -INFINITY, -INFINITY, -INFINITY};
  std::vector<TokenScore> best(3);
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (isa > BestIsa()) continue;
    const auto backend = *CpuBackend::Create({ComputeMode::kF32, 1, std::string(NameOf(isa))});
    backend->ArgMax({logits.data(), 3, 3, 3}, best);
    EXPECT_EQ(best[0].token_id, 0);
    EXPECT_EQ(best[1].token_id, 2);
    EXPECT_EQ(best[2].token_id, 0);
  }
}

TEST(CpuBackendTest, AllocatesZeroedAlignedMemoryAndRefusesTheImpossible) {
  const auto backend = *CpuBackend::Create({});
  const std::shared_ptr<void> memory = *backend->Allocate(5'000'001);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.get()) % 64, 0u);
  const auto* bytes = static_cast<const char*>(memory.get());
  for (int64_t i = 0; i < 5'000'001; i += 997) ASSERT_EQ(bytes[i], 0);
  EXPECT_EQ(backend->Allocate(int64_t{1} << 60).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace polyad::cpu
