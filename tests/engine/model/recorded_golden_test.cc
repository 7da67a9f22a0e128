// Whole tiny models on the emulated device, decoding beside each other with adapters of every
// family, their steps recorded and run as graphs: the bits of every logit are those of steps that
// are queued call by call. covers: kernels/cuda/step_graphs.cc

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/model/decoding.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/cuda/fake_matmuls.h"

namespace polyad {
namespace {

constexpr int64_t kGraphRows = Decoding::kMostSequences;

// A model that decodes, and the emulated device it is on.
struct OnEmulator {
  OnEmulator(const std::string& name, int64_t graph_rows,
             std::unique_ptr<cuda::PlainProducts> products = nullptr)
      : device(new test::EmulatedBackend(ComputeMode::kAuto, {}, /*guarded=*/true,
                                         std::move(products), graph_rows)),
        decoding(name, std::unique_ptr<Backend>(device)) {}

  std::vector<std::vector<float>> Run(size_t count) {
    std::vector<std::vector<float>> logits = decoding.Run(count);
    EXPECT_EQ(device->fault(), "");
    return logits;
  }
  const cuda::StepGraphs::Counts& counts() { return device->graph_counts(); }

  test::EmulatedBackend* device;  // the model's
  Decoding decoding;
};

class RecordedGolden : public testing::TestWithParam<std::string> {};

TEST_P(RecordedGolden, GraphsGiveTheBitsOfLaunches) {
  OnEmulator queued(GetParam(), 0);
  OnEmulator recorded(GetParam(), kGraphRows);
  const size_t most = queued.decoding.num_sequences();
  // The base alone, a few tenants, and all of them, some of which the host weighs in every layer.
  for (const size_t count : {size_t{1}, size_t{4}, most}) {
    if (count > most) continue;
    const auto expected = queued.Run(count);
    ExpectSameBits(recorded.Run(count), expected);
    ExpectSameBits(recorded.Run(count), expected);
  }
  EXPECT_EQ(queued.counts().launched, 0);
  EXPECT_GE(recorded.counts().made, 3);
  EXPECT_GE(recorded.counts().launched, 4 * Decoding::kSteps);
  EXPECT_EQ(recorded.counts().refused, 0);
}

INSTANTIATE_TEST_SUITE_P(Models, RecordedGolden, testing::Values("gpt2", "llama", "qwen3"),
                         [](const auto& model) { return model.param; });

std::unique_ptr<cuda::PlainProducts> Products() {
  test::FakeMatmuls* library = nullptr;
  return test::FakeProducts({test::FakeWay()}, kGraphRows, library);
}

// What comes before a step's first base product is a graph, the rest is queued.
TEST(RecordedGoldenTest, ProductsOfALibraryComeInTheirPlace) {
  OnEmulator queued("llama", 0, Products());
  OnEmulator recorded("llama", kGraphRows, Products());
  for (const size_t count : {size_t{1}, size_t{4}}) {
    const auto expected = queued.Run(count);
    ExpectSameBits(recorded.Run(count), expected);
  }
  EXPECT_GE(recorded.counts().made, 2);
  EXPECT_GE(recorded.counts().launched, Decoding::kSteps);
  EXPECT_EQ(recorded.counts().refused, 0);
}

}  // namespace
}  // namespace polyad
