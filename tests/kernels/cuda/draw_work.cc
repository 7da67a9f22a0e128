#include "tests/kernels/cuda/draw_work.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>

#include "engine/model/sampler.h"
#include "kernels/api/check.h"

namespace polyad::test {
namespace {

// A draw's place: its seed, choice and position.
struct Place {
  SamplingParams params;
  std::vector<int32_t> prompt;
  int32_t choice = 0;

  Place(const SamplingParams& own, int draw)
      : params(own), prompt(static_cast<size_t>(1 + draw % 5), 0), choice(draw % 3) {
    params.seed = static_cast<uint64_t>(draw) * 0x9E3779B97F4A7C15u;
  }
  SampleInput Input(const std::vector<float>& logits) const {
    return {.logits = logits, .prompt = prompt, .choice = choice};
  }
};

}  // namespace

std::vector<std::vector<int32_t>> TokensOf(Backend& backend, const std::vector<DrawTrial>& trials,
                                           int num_draws) {
  const auto cols = static_cast<int64_t>(trials.at(0).logits.size());
  const auto rows = static_cast<int64_t>(trials.size());
  const int64_t stride = cols + 3;
  const auto memory = backend.Allocate(rows * stride * static_cast<int64_t>(sizeof(float)));
  KERNEL_CHECK(memory.ok(), "memory for a test's logits");
  const FloatRows logits{static_cast<float*>(memory->get()), rows, cols, stride};
  std::vector<DrawArgs> draws;
  for (int64_t row = 0; row < rows; ++row) {
    const DrawTrial& trial = trials[static_cast<size_t>(row)];
    std::copy(trial.logits.begin(), trial.logits.end(), logits.Row(row));
    for (int i = 0; i < num_draws; ++i) {
      const Place place(trial.params, i);
      draws.push_back(DrawOf(place.Input(trial.logits), place.params));
      draws.back().row = row;
    }
  }
  std::vector<int32_t> tokens(draws.size());
  backend.Draw(logits, draws, tokens);
  backend.Finish();
  std::vector<std::vector<int32_t>> drawn;
  for (auto at = tokens.begin(); at != tokens.end(); at += num_draws) {
    drawn.emplace_back(at, at + num_draws);
  }
  return drawn;
}

std::vector<std::vector<int32_t>> TokensOfSampler(const std::vector<DrawTrial>& trials,
                                                  int num_draws) {
  Sampler sampler(static_cast<int64_t>(trials.at(0).logits.size()));
  std::vector<std::vector<int32_t>> drawn;
  for (const DrawTrial& trial : trials) {
    std::vector<int32_t>& tokens = drawn.emplace_back();
    for (int i = 0; i < num_draws; ++i) {
      const Place place(trial.params, i);
      const StatusOr<int32_t> token = sampler.Sample(place.Input(trial.logits), place.params);
      tokens.push_back(token.ok() ? *token : -1);
    }
  }
  return drawn;
}

std::vector<float> RandomLogits(int64_t cols, uint32_t seed, float step) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> logits(static_cast<size_t>(cols));
  for (float& logit : logits) {
    logit = normal(random);
    if (step > 0) logit = std::round(logit / step) * step;
  }
  return logits;
}

std::vector<SamplingParams> WaysToDraw() {
  return {{.temperature = 1.0f},
          {.temperature = 0.6f, .top_k = 1},
          {.temperature = 1.3f, .top_k = 40},
          {.temperature = 1.0f, .top_k = 700, .top_p = 0.95f},
          {.temperature = 0.8f, .top_p = 0.9f},
          {.temperature = 1.0f, .top_p = 1e-6f},
          {.temperature = 1.0f, .min_p = 0.05f},
          {.temperature = 1.5f, .top_k = 50, .top_p = 0.8f, .min_p = 0.02f},
          {.temperature = 1e-30f},
          {.temperature = 100.0f, .top_k = 900}};
}

}  // namespace polyad::test
