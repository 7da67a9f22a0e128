// Whole tiny models through the CUDA backend on the emulated device, whose memory is out of the
// host's reach whenever it would be on a GPU: every op of every layer a CUDA kernel. In the exact
// mode each architecture with all of its golden adapters in one batch, held against what the
// original libraries computed; in bf16, and over quantised bases, to what its roundings may do;
// with K/V as codes, against the CPU backend's logits; in bf16 with base products of a library.
// covers: kernels/cuda/product.cuh

#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/model/device_golden.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/cuda/fake_matmuls.h"

namespace polyad {
namespace {

// A model, and the emulated device it is on.
struct EmulatedModel {
  EmulatedModel(const std::string& name, ComputeMode mode, KvFormat kv_format = KvFormat::kAuto,
                std::unique_ptr<cuda::PlainProducts> products = nullptr)
      : device(new test::EmulatedBackend(mode, {}, /*guarded=*/true, std::move(products))),
        model(name, std::unique_ptr<Backend>(device), kv_format) {}

  test::EmulatedBackend* device;  // the model's
  DeviceModel model;
};

class EmulatedGolden : public testing::TestWithParam<std::string> {};

TEST_P(EmulatedGolden, EveryTenantGetsWhatTheOriginalComputes) {
  EmulatedModel emulated(GetParam(), ComputeMode::kF32);
  const int64_t launches = emulated.device->num_launches();
  emulated.model.ExpectGoldenLogits();
  EXPECT_EQ(emulated.device->fault(), "");
  EXPECT_GT(emulated.device->num_launches(), launches);
}

INSTANTIATE_TEST_SUITE_P(Models, EmulatedGolden, testing::ValuesIn(ArchitectureNames()),
                         [](const auto& model) { return model.param; });

class EmulatedInBf16 : public testing::TestWithParam<std::string> {};

TEST_P(EmulatedInBf16, EveryTenantIsAsNearToTheOriginalAsItsRoundingsAllow) {
  EmulatedModel emulated(GetParam(), ComputeMode::kAuto);
  emulated.model.ExpectGoldenLogitsUpToRounding();
  EXPECT_EQ(emulated.device->fault(), "");
}

INSTANTIATE_TEST_SUITE_P(Models, EmulatedInBf16, testing::ValuesIn(GoldenNamesIn("models")),
                         [](const auto& model) { return model.param; });

class EmulatedWithLibrary : public testing::TestWithParam<std::string> {};

// As near as with the kernels of its own, which stay for nothing but shapes of no base weight.
TEST_P(EmulatedWithLibrary, EveryTenantIsAsNearToTheOriginalAsItsRoundingsAllow) {
  constexpr int64_t kMostRows = 64;
  test::FakeMatmuls* library = nullptr;
  EmulatedModel emulated(GetParam(), ComputeMode::kAuto, KvFormat::kAuto,
                         test::FakeProducts({test::FakeWay()}, kMostRows, library));
  EXPECT_THAT(emulated.device->info().isa, testing::Not(testing::HasSubstr("own kernels")));
  const int64_t calls = library->calls()[0];
  emulated.model.ExpectGoldenLogitsUpToRounding();
  EXPECT_GT(library->calls()[0], calls);
  EXPECT_EQ(emulated.device->fault(), "");
}

INSTANTIATE_TEST_SUITE_P(Models, EmulatedWithLibrary, testing::ValuesIn(ArchitectureNames()),
                         [](const auto& model) { return model.param; });

class EmulatedWithCodes : public testing::TestWithParam<std::tuple<std::string, KvFormat>> {};

// Codes are the same everywhere; what they lose of the original is held where text can be scored
// (smollm2_test).
TEST_P(EmulatedWithCodes, EveryTenantGetsWhatTheCpuBackendGives) {
  const auto& [name, format] = GetParam();
  EmulatedModel emulated(name, ComputeMode::kAuto, format);
  BackendOptions options;
  options.mode = ComputeMode::kBF16;
  options.num_threads = 1;
  absl::StatusOr<std::unique_ptr<Backend>> cpu = MakeBackend("cpu", options);
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  DeviceModel expected(name, *std::move(cpu), format);
  emulated.model.ExpectLogitsOf(expected);
  EXPECT_EQ(emulated.device->fault(), "");
}

INSTANTIATE_TEST_SUITE_P(Models, EmulatedWithCodes,
                         testing::Combine(testing::ValuesIn(ArchitectureNames()),
                                          testing::Values(KvFormat::kInt8, KvFormat::kInt4)),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" +
                                  std::string(NameOf(std::get<1>(test.param)));
                         });

}  // namespace
}  // namespace polyad
