#pragma once

// The requests of a load run, as load_tests/workloads.py writes them: one JSON object per line with
// at_s, prompt_tokens, output_tokens and, where wanted, model, tenant, prefix, prefix_tokens,
// read_pause_ms, cancel_after_tokens. Plain values. INVALID_ARGUMENT names the line.

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"

namespace polyad {

struct BenchRequest {
  int64_t at_us = 0;  // intended arrival, after the start
  std::string model;  // empty: the base model
  std::string tenant;
  int64_t prompt_tokens = 1;
  int64_t output_tokens = 1;
  int64_t prefix = 0;  // requests of one number begin with the same prefix_tokens tokens
  int64_t prefix_tokens = 0;
  int64_t read_pause_ms = 0;        // before every read of the answer
  int64_t cancel_after_tokens = 0;  // 0: never
};

inline constexpr int64_t kMaxBenchRequests = 10'000'000;
inline constexpr int64_t kMaxBenchTraceBytes = int64_t{2} << 30;

// Arrivals must not fall from line to line. `where` names the text in messages.
StatusOr<std::vector<BenchRequest>> ParseBenchTrace(std::string_view text,
                                                    const std::string& where);

// Arrivals of a Poisson process (rate 0: all at once), for models drawn from a list.
struct BenchMix {
  double rate = 0;  // requests per second
  int64_t num_requests = 100;
  int64_t prompt_tokens = 128;
  int64_t output_tokens = 64;
  std::vector<std::string> models;  // empty: the base model
  bool zipf = false;                // model i has weight 1 / (i + 1), else all the same
  uint64_t seed = 1;
};
std::vector<BenchRequest> MakeBenchTrace(const BenchMix& mix);

// Random ids of [16, vocab_size); the prefix's are the same for every request of its number.
std::vector<int32_t> BenchPrompt(const BenchRequest& request, int64_t vocab_size,
                                 std::mt19937_64& random);

}  // namespace polyad
