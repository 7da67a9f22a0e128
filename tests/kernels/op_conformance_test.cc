// Every backend at every level of this machine, in both modes, against the double-precision
// reference. covers: kernels/cpu/activation_kernel.cc covers: kernels/cpu/argmax_kernel.cc covers:
// kernels/cpu/norm_kernel.cc covers: kernels/cpu/rope_kernel.cc covers: kernels/cpu/row_kernels.cc
// covers: kernels/cpu/store_kernel.cc

#include <cmath>
#include <string>

#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "kernels/cpu/cpu_features.h"
#include "tests/kernels/op_cases.h"

namespace polyad::test {
namespace {

struct Setting {
  std::string isa;
  ComputeMode mode;
};

std::vector<Setting> Settings() {
  std::vector<Setting> settings;
  for (cpu::Isa isa : {cpu::Isa::kScalar, cpu::Isa::kAvx2, cpu::Isa::kAvx512, cpu::Isa::kAmx}) {
    if (isa > cpu::BestIsa()) continue;
    settings.push_back({std::string(cpu::NameOf(isa)), ComputeMode::kF32});
    settings.push_back({std::string(cpu::NameOf(isa)), ComputeMode::kAuto});
  }
  return settings;
}

// |actual - expected| / |expected|
double RelativeError(const std::vector<double>& actual, const std::vector<double>& expected) {
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return norm > 0 ? std::sqrt(error / norm) : 0.0;
}

class OpConformanceTest : public testing::TestWithParam<Setting> {};

TEST_P(OpConformanceTest, EveryOpIsWithinItsToleranceOfTheReference) {
  const Setting& setting = GetParam();
  const absl::StatusOr<std::unique_ptr<Backend>> backend =
      MakeBackend("cpu", {setting.mode, 2, setting.isa});
  ASSERT_TRUE(backend.ok()) << backend.status();
  const absl::StatusOr<std::unique_ptr<Backend>> reference =
      MakeBackend("reference", {setting.mode, 1, "auto"});
  ASSERT_TRUE(reference.ok()) << reference.status();
  for (const OpCase& op : ConformanceCases()) {
    const std::unique_ptr<OpRun> got = op.make(**backend);
    const std::unique_ptr<OpRun> want = op.make(**reference);
    got->Run();
    want->Run();
    const std::vector<double> actual = got->Output();
    const std::vector<double> expected = want->Output();
    const std::vector<double> tolerance = want->Tolerance();
    ASSERT_EQ(actual.size(), expected.size()) << op.name;
    ASSERT_EQ(tolerance.size(), expected.size()) << op.name;
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_LE(std::abs(actual[i] - expected[i]), tolerance[i])
          << op.name << " element " << i << ": expected " << expected[i] << ", got " << actual[i];
    }
    EXPECT_LE(RelativeError(actual, expected), want->NormTolerance()) << op.name;
    got->Run();  // nothing is left over between calls
    EXPECT_EQ(got->Output(), actual) << op.name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, OpConformanceTest, testing::ValuesIn(Settings()),
                         [](const testing::TestParamInfo<Setting>& test) {
                           return test.param.isa +
                                  (test.param.mode == ComputeMode::kF32 ? "_f32" : "_auto");
                         });

TEST(MakeBackendTest, RefusesWhatItDoesNotKnowByName) {
  const absl::Status unknown = MakeBackend("tpu", {}).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(unknown.message()).find("tpu"), std::string::npos);
  EXPECT_EQ(MakeBackend("cpu", {ComputeMode::kAuto, -1, "auto"}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MakeBackend("cpu", {ComputeMode::kAuto, 1, "neon"}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(MakeBackendTest, SaysWhatItChose) {
  const absl::StatusOr<std::unique_ptr<Backend>> backend =
      MakeBackend("cpu", {ComputeMode::kAuto, 3, "scalar"});
  ASSERT_TRUE(backend.ok());
  EXPECT_EQ((*backend)->info().name, "cpu");
  EXPECT_EQ((*backend)->info().isa, "scalar");
  EXPECT_EQ((*backend)->info().num_threads, 3);
}

}  // namespace
}  // namespace polyad::test
