#pragma once

// Draws from rows of logits, by a backend and by the host's sampler, for tests that hold one
// against the other.

#include <cstdint>
#include <vector>

#include "engine/request/sampling_params.h"
#include "kernels/api/backend.h"

namespace polyad::test {

// A row and how to draw from it; each of a trial's draws has a seed of its own.
struct DrawTrial {
  std::vector<float> logits;
  SamplingParams params;
};

// [trial][draw]; -1: left to the caller. Rows are as wide as the first trial's and lie in the
// backend's memory.
std::vector<std::vector<int32_t>> TokensOf(Backend& backend, const std::vector<DrawTrial>& trials,
                                           int num_draws);
// -1: an error.
std::vector<std::vector<int32_t>> TokensOfSampler(const std::vector<DrawTrial>& trials,
                                                  int num_draws);

// [cols] normal numbers; `step` 0, or what they are rounded to multiples of, so that many tie.
std::vector<float> RandomLogits(int64_t cols, uint32_t seed, float step = 0.0f);

// One of each way to draw that a kernel has a branch for.
std::vector<SamplingParams> WaysToDraw();

}  // namespace polyad::test
