#include "server/queue_estimate.h"

#include <algorithm>
#include <cmath>

namespace polyad {

void QueueEstimate::Advance(int64_t now_us) {
  const auto passed_us = static_cast<double>(std::max<int64_t>(now_us - last_us_, 0));
  const double fade = std::exp(-passed_us / (kFadeSeconds * 1e6));
  busy_us_ = busy_us_ * fade + (num_queued_ > 0 ? passed_us : 0);
  num_turns_ *= fade;
  last_us_ = std::max(last_us_, now_us);
}

void QueueEstimate::Arrive(int64_t now_us) {
  Advance(now_us);
  ++num_queued_;
}

void QueueEstimate::Leave(bool served, int64_t now_us) {
  Advance(now_us);
  --num_queued_;
  if (served) num_turns_ += 1;
}

double QueueEstimate::GapMicros(int64_t now_us) {
  constexpr double kFewTurns = 2;
  Advance(now_us);
  return num_turns_ < kFewTurns ? 0 : busy_us_ / num_turns_;
}

}  // namespace polyad
