// Whole tiny models through the CUDA backend on the emulated device: every op of every layer a CUDA
// kernel. In the exact mode each architecture with all of its golden adapters in one batch, held
// against what the original libraries computed; in bf16, and over quantised bases, to what its
// roundings may do. covers: kernels/cuda/product.cuh
#include "gtest/gtest.h"
#include "tests/engine/model/device_golden.h"
#include "tests/kernels/cuda/emulated_backend.h"

namespace polyad {
namespace {

// A model, and the emulated device it is on.
struct EmulatedModel {
  EmulatedModel(const std::string& name, ComputeMode mode)
      : device(new test::EmulatedBackend(mode, {})),
        model(name, std::unique_ptr<Backend>(device)) {}

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

}  // namespace
}  // namespace polyad
