#pragma once

// What one client of the simulator saw of its request, and the random numbers by which its history
// goes. Test-only.

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/request/request.h"
#include "engine/request/token_event.h"

namespace polyad {

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  int64_t Below(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }
  int64_t Between(int64_t low, int64_t high) { return low + Below(high - low + 1); }
  bool Chance(int percent) { return Below(100) < percent; }

 private:
  std::mt19937_64 random_;
};

struct Record {
  struct Choice {
    std::vector<int32_t> token_ids;
    std::vector<TokenLogprob> token_logprobs;
    std::string text;
    bool finished = false;
    FinishEvent finish;
  };
  std::shared_ptr<const Request> request;
  std::vector<Choice> choices;
  std::vector<TokenLogprob> prompt_logprobs;
  std::vector<float> embedding;
  int64_t number = 0;
  bool prompt_seen = false;
  bool refuses = false;  // from some event on
  int64_t refuse_after = -1;
  int64_t num_events = 0;
  bool cancelled = false;
  int64_t echo_bytes = 0;
};

inline bool SameLogprobs(const std::vector<TokenLogprob>& a, const std::vector<TokenLogprob>& b,
                         size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (a[i].token_id != b[i].token_id || a[i].logprob != b[i].logprob || a[i].rank != b[i].rank)
      return false;
    if (a[i].top.size() != b[i].top.size()) return false;
    for (size_t k = 0; k < a[i].top.size(); ++k) {
      if (a[i].top[k].token_id != b[i].top[k].token_id) return false;
    }
  }
  return true;
}

}  // namespace polyad
