// Tokens drawn by the kernel are those that the host's sampler draws from the same logits, whatever
// the width of the vocabulary, with ties and infinities; what it cannot draw it leaves.
// covers: kernels/cuda/draw_tokens.cuh

#include "kernels/cuda/draw_tokens.cuh"

#include <cmath>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/kernels/cuda/draw_work.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/simt/schedules.h"

namespace polyad::test {
namespace {

using ::testing::Each;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<DrawTrial> TrialsOf(int64_t cols, float step) {
  std::vector<DrawTrial> trials;
  for (const SamplingParams& way : WaysToDraw()) {
    const auto seed = static_cast<uint32_t>(trials.size());
    trials.push_back({RandomLogits(cols, seed, step), way});
  }
  return trials;
}

void ExpectTheSamplers(Backend& backend, const std::vector<DrawTrial>& trials, int num_draws) {
  const auto drawn = TokensOf(backend, trials, num_draws);
  const auto expected = TokensOfSampler(trials, num_draws);
  for (size_t i = 0; i < trials.size(); ++i) {
    EXPECT_EQ(drawn[i], expected[i]) << "way " << i << " of " << trials[i].logits.size() << " ids";
    EXPECT_THAT(expected[i], Each(testing::Ge(0)));
  }
}

// What the kernel draws from one row, three times.
std::vector<int32_t> Drawn(std::vector<float> logits, const SamplingParams& params) {
  EmulatedBackend backend(ComputeMode::kF32, {});
  auto tokens = TokensOf(backend, {{std::move(logits), params}}, 3);
  EXPECT_EQ(backend.fault(), "");
  return tokens[0];
}

class DrawTokensTest : public testing::TestWithParam<simt::EmulatorOptions> {};
INSTANTIATE_TEST_SUITE_P(All, DrawTokensTest, testing::ValuesIn(simt::Schedules()),
                         simt::NameOfSchedule);

TEST_P(DrawTokensTest, TheTokenIsTheSamplers) {
  EmulatedBackend backend(ComputeMode::kF32, GetParam());
  for (const int64_t cols : {17, 4111}) {
    ExpectTheSamplers(backend, TrialsOf(cols, 0.0f), 1);
    ASSERT_EQ(backend.fault(), "");
  }
  ExpectTheSamplers(backend, TrialsOf(600, 0.5f), 2);
  EXPECT_EQ(backend.fault(), "");
}

TEST(DrawWidthsTest, EveryWidthDrawsTheSamplersToken) {
  EmulatedBackend backend(ComputeMode::kF32, {}, /*guarded=*/true);
  for (const int64_t cols : {1, 2, 15, 16, 31, 33, 255, 256, 1023, 1024, 1025, 4095, 4096, 4097}) {
    ExpectTheSamplers(backend, TrialsOf(cols, 0.0f), 2);
  }
  EXPECT_EQ(backend.fault(), "");
}

TEST(DrawWidthsTest, AWideVocabularyTakesSeveralRoundsOfBlocks) {
  EmulatedBackend backend(ComputeMode::kF32, {});
  const std::vector<float> logits = RandomLogits(70003, 5);
  ExpectTheSamplers(
      backend, {{logits, {.temperature = 1.0f}}, {logits, {.temperature = 0.7f, .top_k = 20}}}, 4);
  EXPECT_EQ(backend.fault(), "");
}

TEST(DrawTiesTest, TheLowestIdsComeFirst) {
  std::vector<float> logits(900, -1.0f);
  for (const size_t id : {850, 3, 411}) logits[id] = 2.0f;
  const SamplingParams two{.temperature = 1.0f, .top_k = 2};
  EXPECT_EQ(TokensOfSampler({{logits, two}}, 3)[0], Drawn(logits, two));
  EXPECT_THAT(Drawn(logits, two), Each(testing::AnyOf(3, 411)));
  EXPECT_THAT(Drawn(logits, {.temperature = 1.0f, .top_k = 1}), Each(3));
}

TEST(DrawTiesTest, IdsThatCannotBeAreNotDrawn) {
  std::vector<float> logits(5000, -kInfinity);
  logits[4999] = -3.0f;
  for (const SamplingParams& way : WaysToDraw()) EXPECT_THAT(Drawn(logits, way), Each(4999));
}

// More ids than are sorted have the weight at which top-k, top-p or min-p ends.
TEST(DrawLeavesTest, WhatNeedsMoreCandidatesThanAreSorted) {
  const std::vector<float> flat(3000, 1.0f);
  EXPECT_THAT(Drawn(flat, {.temperature = 1.0f, .top_k = 5}), Each(-1));
  EXPECT_THAT(Drawn(flat, {.temperature = 1.0f, .top_p = 0.5f}), Each(-1));
  EXPECT_THAT(Drawn(flat, {.temperature = 1.0f, .min_p = 0.5f}), Each(-1));
  EXPECT_THAT(Drawn(RandomLogits(3000, 1), {.temperature = 1.0f, .top_k = 1025}), Each(-1));
  EXPECT_THAT(Drawn(RandomLogits(3000, 1), {.temperature = 100.0f, .top_p = 0.9f}), Each(-1));
  EXPECT_EQ(Drawn(flat, {.temperature = 1.0f}),
            TokensOfSampler({{flat, {.temperature = 1.0f}}}, 3)[0]);
}

TEST(DrawLeavesTest, RowsWithoutAFiniteLargestLogit) {
  for (const float wrong : {std::nanf(""), kInfinity}) {
    for (const size_t at : {size_t{0}, size_t{31}, size_t{700}, size_t{1000}}) {
      std::vector<float> logits = RandomLogits(1001, 2);
      logits[at] = wrong;
      EXPECT_THAT(Drawn(logits, {.temperature = 1.0f}), Each(-1)) << wrong << " at " << at;
      EXPECT_THAT(Drawn(logits, {.temperature = 1.0f, .top_p = 0.5f}), Each(-1));
    }
  }
  EXPECT_THAT(Drawn(std::vector<float>(40, -kInfinity), {.temperature = 1.0f}), Each(-1));
}

// As the CPU's greedy pick does.
TEST(GreedyPickTest, PassesOverNaNs) {
  EmulatedBackend backend(ComputeMode::kF32, {});
  constexpr int64_t kCols = 300;
  for (const size_t best_at : {size_t{0}, size_t{131}, size_t{299}}) {
    std::vector<float> logits(kCols, std::nanf(""));
    logits[7] = logits[200] = -5.0f;
    logits[best_at] = 1.5f;
    TokenScore best;
    backend.ArgMax({logits.data(), 1, kCols, kCols}, {&best, 1});
    EXPECT_EQ(best.token_id, static_cast<int32_t>(best_at));
    EXPECT_EQ(best.logit, 1.5f);
  }
}

TEST(DrawLeavesTest, VocabulariesBeyondItsLimit) {
  EmulatedBackend backend(ComputeMode::kF32, {});
  const std::vector<float> logits(static_cast<size_t>(cuda::kMaxDrawCols + 1), 0.0f);
  EXPECT_THAT(TokensOf(backend, {{logits, {.temperature = 1.0f}}}, 1)[0], Each(-1));
  EXPECT_EQ(backend.num_launches(), 0);
}

}  // namespace
}  // namespace polyad::test
