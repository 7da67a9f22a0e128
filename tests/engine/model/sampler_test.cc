#include "engine/model/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "engine/model/philox.h"

namespace polyad {
namespace {

std::vector<float> RandomLogits(size_t vocab, uint32_t seed, float spread = 3.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> logits(vocab);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// What the parameters mean, in doubles and without haste: the probability of every id.
std::vector<double> BruteForce(std::vector<float> logits, const SamplingParams& params,
                               const std::vector<int32_t>& prompt,
                               const std::vector<int32_t>& output) {
  const size_t vocab = logits.size();
  std::vector<double> row(logits.begin(), logits.end());
  if (!params.allowed_token_ids.empty()) {
    for (size_t i = 0; i < vocab; ++i) {
      const auto& ids = params.allowed_token_ids;
      if (std::find(ids.begin(), ids.end(), static_cast<int32_t>(i)) == ids.end())
        row[i] = -INFINITY;
    }
  }
  for (const auto& [id, bias] : params.logit_bias) row[static_cast<size_t>(id)] += bias;
  for (size_t i = 0; i < vocab; ++i) {
    const auto id = static_cast<int32_t>(i);
    const auto in_output = std::count(output.begin(), output.end(), id);
    const auto seen = in_output + std::count(prompt.begin(), prompt.end(), id);
    if (seen > 0)
      row[i] = row[i] > 0 ? row[i] / params.repetition_penalty : row[i] * params.repetition_penalty;
    row[i] -= params.frequency_penalty * static_cast<double>(in_output);
    if (in_output > 0) row[i] -= params.presence_penalty;
  }
  std::vector<size_t> order(vocab);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return row[a] > row[b]; });
  std::vector<double> probability(vocab, 0.0);
  const auto normalise = [&] {
    const double total = std::accumulate(probability.begin(), probability.end(), 0.0);
    for (double& p : probability) p /= total;
  };
  for (size_t i = 0; i < vocab; ++i)
    probability[i] = std::exp((row[i] - row[order[0]]) / params.temperature);
  for (double& p : probability) p = p < params.min_p ? 0 : p;
  for (size_t k = static_cast<size_t>(params.top_k); params.top_k > 0 && k < vocab; ++k)
    probability[order[k]] = 0;
  normalise();
  double reached = 0;
  for (const size_t id : order) {
    if (reached >= params.top_p) probability[id] = 0;
    reached += probability[id];
  }
  normalise();
  return probability;
}

SampleInput InputOf(const std::vector<float>& logits, const std::vector<int32_t>& prompt,
                    const std::vector<int32_t>& output) {
  return {.logits = logits, .prompt = prompt, .output = output};
}

TEST(Philox, MatchesThePublishedVectors) {  // Random123 1.x, kat_vectors, philox4x32 10
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, EverySeedChoiceAndPositionDrawsItsOwn) {
  EXPECT_EQ(UniformAt(1, 0, 5), UniformAt(1, 0, 5));
  EXPECT_NE(UniformAt(1, 0, 5), UniformAt(2, 0, 5));
  EXPECT_NE(UniformAt(1, 0, 5), UniformAt(1, 1, 5));
  EXPECT_NE(UniformAt(1, 0, 5), UniformAt(1, 0, 6));
  double sum = 0;
  for (int64_t i = 0; i < 10000; ++i) {
    const double u = UniformAt(42, 0, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 5 * std::sqrt(1.0 / 12 / 10000));  // five standard errors
}

TEST(Sampler, GreedyTakesTheLowestIdOnTies) {
  std::vector<float> logits(100, 0.0f);
  logits[17] = logits[63] = 4.0f;
  Sampler sampler(100);
  SamplingParams params{.temperature = 0};
  EXPECT_EQ(*sampler.Sample(InputOf(logits, {1}, {}), params), 17);
  params.logit_bias = {{63, 0.5f}};
  EXPECT_EQ(*sampler.Sample(InputOf(logits, {1}, {}), params), 63);
}

TEST(Sampler, DrawsFollowTheBruteForceDistribution) {
  const size_t vocab = 50;
  const std::vector<int32_t> prompt = {1, 2, 3, 3};
  const std::vector<int32_t> output = {4, 5, 4};
  const std::vector<SamplingParams> cases = {
      {.temperature = 1.0f},
      {.temperature = 0.5f},
      {.temperature = 2.0f, .top_k = 7},
      {.temperature = 1.0f, .top_p = 0.8f},
      {.temperature = 1.5f, .top_k = 20, .top_p = 0.6f},
      {.temperature = 1.0f, .min_p = 0.1f},
      {.temperature = 1.5f, .top_p = 0.9f, .min_p = 0.05f},
      {.temperature = 1.0f, .repetition_penalty = 1.7f},
      {.temperature = 1.0f, .presence_penalty = 1.5f, .frequency_penalty = 0.7f},
      {.temperature = 1.0f, .logit_bias = {{9, 3.0f}, {10, -100.0f}}},
      {.temperature = 1.0f, .top_p = 0.9f, .allowed_token_ids = {4, 8, 15, 16, 23, 42}},
  };
  Sampler sampler(vocab);
  for (size_t c = 0; c < cases.size(); ++c) {
    const std::vector<float> logits = RandomLogits(vocab, static_cast<uint32_t>(c), 1.5f);
    const std::vector<double> expected = BruteForce(logits, cases[c], prompt, output);
    const int num_draws = 20000;
    std::vector<int> seen(vocab, 0);
    SamplingParams params = cases[c];
    for (int draw = 0; draw < num_draws; ++draw) {
      params.seed = static_cast<uint64_t>(draw);
      ++seen[static_cast<size_t>(*sampler.Sample(InputOf(logits, prompt, output), params))];
    }
    for (size_t id = 0; id < vocab; ++id) {
      if (expected[id] == 0) {
        EXPECT_EQ(seen[id], 0) << "case " << c << " id " << id;
      }
      const double deviation = std::sqrt(num_draws * expected[id] * (1 - expected[id]));
      EXPECT_NEAR(seen[id], num_draws * expected[id], 5 * deviation + 1e-9)
          << "case " << c << " id " << id;
    }
  }
}

TEST(Sampler, WideVocabulariesDrawByTheSameRule) {
  // Wider than one block of sums and not a multiple of the lanes: a draw must invert the cumulative
  // distribution.
  const size_t vocab = 10007;
  const std::vector<float> logits = RandomLogits(vocab, 3, 1.0f);
  const std::vector<double> probability = BruteForce(logits, {.temperature = 1.0f}, {}, {});
  Sampler sampler(static_cast<int64_t>(vocab));
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const SamplingParams params{.temperature = 1.0f, .seed = seed};
    const auto token = static_cast<size_t>(*sampler.Sample(InputOf(logits, {0}, {}), params));
    const double before = std::accumulate(probability.begin(),
                                          probability.begin() + static_cast<ptrdiff_t>(token), 0.0);
    const double uniform = UniformAt(seed, 0, 1);
    EXPECT_GE(uniform, before - 1e-5);
    EXPECT_LE(uniform, before + probability[token] + 1e-5);
  }
}

TEST(Sampler, TopPOverManyNearEqualTokensKeepsTheSmallestSet) {
  const size_t vocab = 4000;
  std::vector<float> logits(vocab, 0.0f);  // uniform: the set is the first half by id
  Sampler sampler(static_cast<int64_t>(vocab));
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const SamplingParams params{.temperature = 1.0f, .top_p = 0.5f, .seed = seed};
    EXPECT_LT(*sampler.Sample(InputOf(logits, {0}, {}), params), 2000);
  }
}

TEST(Sampler, PenaltiesLeaveNoTraceInTheNextCall) {
  const std::vector<float> logits = RandomLogits(64, 9);
  const std::vector<int32_t> prompt = {1, 1, 2};
  const std::vector<int32_t> output = {3, 3};
  Sampler used(64);
  const SamplingParams heavy{
      .temperature = 1.0f, .repetition_penalty = 3.0f, .presence_penalty = 2.0f};
  ASSERT_TRUE(used.Sample(InputOf(logits, prompt, output), heavy).ok());
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Sampler fresh(64);
    const SamplingParams params{.temperature = 1.0f, .seed = seed, .repetition_penalty = 1.2f};
    EXPECT_EQ(*used.Sample(InputOf(logits, prompt, output), params),
              *fresh.Sample(InputOf(logits, prompt, output), params));
  }
}

TEST(Sampler, ForbiddenIdsAreNeverChosen) {
  std::vector<float> logits(8, 0.0f);
  logits[2] = 10.0f;
  const std::vector<int32_t> stops = {2};
  Sampler sampler(8);
  SampleInput input{.logits = logits, .forbidden = stops};
  EXPECT_EQ(*sampler.Sample(input, {.temperature = 0}), 0);
  const SamplingParams only_stop{.temperature = 1.0f, .allowed_token_ids = {2}};
  EXPECT_EQ(sampler.Sample(input, only_stop).status().code(), absl::StatusCode::kInternal);
}

TEST(Sampler, ARowWithNaNIsAnError) {
  std::vector<float> logits(40, 0.0f);
  logits[33] = std::numeric_limits<float>::quiet_NaN();
  Sampler sampler(40);
  for (const float temperature : {0.0f, 1.0f}) {
    EXPECT_EQ(sampler.Sample({.logits = logits}, {.temperature = temperature}).status().code(),
              absl::StatusCode::kInternal);
  }
  EXPECT_FALSE(sampler.Score(logits, 0, 3).ok());
}

TEST(Sampler, ATinyTemperatureIsGreedyAndNotAFault) {
  const std::vector<float> logits = RandomLogits(64, 4);
  Sampler sampler(64);
  const int32_t greedy = *sampler.Sample({.logits = logits}, {.temperature = 0});
  for (const float temperature : {1e-6f, 1e-30f, 1e-44f}) {
    EXPECT_EQ(*sampler.Sample({.logits = logits}, {.temperature = temperature}), greedy);
  }
}

TEST(Sampler, ScoresAreTheRawDistribution) {
  const size_t vocab = 5003;
  std::vector<float> logits = RandomLogits(vocab, 5);
  logits[20] = logits[10];  // a tie: the lower id ranks first
  Sampler sampler(static_cast<int64_t>(vocab));
  const std::vector<double> probability = BruteForce(logits, {.temperature = 1.0f}, {}, {});
  for (const int32_t token : {0, 10, 20, 4999}) {
    const TokenLogprob score = *sampler.Score(logits, token, 5);
    EXPECT_NEAR(score.logprob, std::log(probability[static_cast<size_t>(token)]), 2e-6 * 16);
    const auto better = std::count_if(logits.begin(), logits.end(), [&](float logit) {
      return logit > logits[static_cast<size_t>(token)];
    });
    EXPECT_EQ(score.rank, better + 1 + (token == 20 ? 1 : 0));
    ASSERT_EQ(score.top.size(), 5u);
    const float largest = *std::max_element(logits.begin(), logits.end());
    EXPECT_EQ(logits[static_cast<size_t>(score.top[0].token_id)], largest);
    for (size_t i = 1; i < 5; ++i) EXPECT_GE(score.top[i - 1].logprob, score.top[i].logprob);
  }
  EXPECT_TRUE(sampler.Score(logits, 0, 0)->top.empty());
}

}  // namespace
}  // namespace polyad
