#pragma once

// What a load run measured, and its summary under the keys of vLLM's benchmark (so that tools which
// read those read ours). Times in milliseconds. Plain values.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace polyad {

struct BenchResult {
  double duration_s = 0;
  double request_rate = 0;  // asked for; 0: all at once
  int64_t completed = 0;
  int64_t failed = 0;
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  std::vector<double>
      ttft_ms;  // from the scheduled arrival, so a late client does not flatter the server
  std::vector<double> tpot_ms;  // per request: (last - first) / (tokens - 1)
  std::vector<double> itl_ms;   // between two tokens
  std::vector<double> e2el_ms;
};

// Linear interpolation between the closest ranks of `sorted`; 0 of nothing. `percent` in [0, 100].
double Percentile(const std::vector<double>& sorted, double percent);
std::string BenchJson(BenchResult result);

}  // namespace polyad
