#include "server/queue_estimate.h"

#include <algorithm>
#include <cmath>

namespace polyad {

void QueueEstimate::Advance(int64_t now_us) {
  const auto passed_us = static_cast<double>(std::max<int64_t>(now_us - last_us_, 0));
  const double fade = std::exp(-passed_us / (kFadeSeconds * 1e6));
  full_us_ = full_us_ * fade + (is_full() ? passed_us : 0);
  num_ends_ *= fade;
  last_us_ = std::max(last_us_, now_us);
}

void QueueEstimate::Arrive(int64_t now_us) {
  Advance(now_us);
  ++num_queued_;
}

void QueueEstimate::Begin(int64_t now_us) {
  Advance(now_us);
  --num_queued_;
  ++num_running_;
}

void QueueEstimate::GiveUp(int64_t now_us) {
  Advance(now_us);
  --num_queued_;
}

void QueueEstimate::End(int64_t ran_us, int64_t now_us) {
  constexpr double kNewest = 0.1;  // share of the mean
  Advance(now_us);
  if (is_full()) num_ends_ += 1;
  --num_running_;
  const auto newest_us = static_cast<double>(ran_us);
  mean_run_us_ = mean_run_us_ > 0 ? mean_run_us_ + kNewest * (newest_us - mean_run_us_) : newest_us;
}

double QueueEstimate::GapMicros(int64_t now_us) {
  Advance(now_us);
  constexpr double kPriorShare = 0.5;
  return (full_us_ + kPriorShare * mean_run_us_) /
         (num_ends_ + kPriorShare * static_cast<double>(num_places_));
}

}  // namespace polyad
