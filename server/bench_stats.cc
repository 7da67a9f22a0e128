#include "server/bench_stats.h"

#include <algorithm>
#include <utility>

namespace polyad {
namespace {

int64_t Micros(std::chrono::steady_clock::duration time) {
  return std::chrono::duration_cast<std::chrono::microseconds>(time).count();
}

bool Within(int64_t us, double limit_ms) {
  return limit_ms <= 0 || static_cast<double>(us) <= limit_ms * 1e3;
}

}  // namespace

int64_t BenchTimer::Since(BenchTime now) const { return Micros(now - intended_); }

void BenchTimer::Tokens(int64_t count, BenchTime now) {
  if (count <= 0) return;
  if (num_tokens_ == 0) {
    first_ = now;
    outcome_.ttft_us = Since(now);
  } else {
    outcome_.gaps_us.push_back(
        static_cast<int32_t>(std::min<int64_t>(Micros(now - last_), INT32_MAX)));
  }
  last_ = now;
  num_tokens_ += count;
}

BenchOutcome BenchTimer::Finish(BenchTime now) {
  outcome_.e2el_us = Since(now);
  if (outcome_.output_tokens == 0) outcome_.output_tokens = num_tokens_;
  if (num_tokens_ > 0 && outcome_.output_tokens > 1) {
    outcome_.tpot_us = Micros(last_ - first_) / (outcome_.output_tokens - 1);
  }
  return std::move(outcome_);
}

bool BenchTargets::Met(const BenchOutcome& outcome) const {
  return outcome.end == BenchOutcome::End::kCompleted && Within(outcome.ttft_us, ttft_ms) &&
         Within(outcome.tpot_us, tpot_ms) && Within(outcome.e2el_us, e2el_ms);
}

void BenchGroup::Add(const BenchOutcome& outcome, const BenchTargets& targets) {
  using End = BenchOutcome::End;
  if (outcome.end == End::kRefused) ++refused;
  if (outcome.end == End::kFailed) ++failed;
  if (outcome.end == End::kCancelled) ++cancelled;
  if (outcome.end != End::kCompleted) return;
  ++completed;
  input_tokens += outcome.input_tokens;
  output_tokens += outcome.output_tokens;
  if (targets.Met(outcome)) {
    ++good;
    good_tokens += outcome.output_tokens;
  }
  if (outcome.ttft_us >= 0) ttft.Add(outcome.ttft_us);
  if (outcome.tpot_us >= 0) tpot.Add(outcome.tpot_us);
  for (int32_t gap_us : outcome.gaps_us) itl.Add(gap_us);
  e2el.Add(outcome.e2el_us);
}

double BenchGroup::Attainment() const {
  const int64_t all = completed + refused + failed;
  return all == 0 ? 1.0 : static_cast<double>(good) / static_cast<double>(all);
}

void BenchStats::Add(const BenchRequest& request, const BenchOutcome& outcome) {
  std::lock_guard<std::mutex> lock(mutex_);
  result_.total.Add(outcome, result_.targets);
  result_.by_tenant[request.tenant].Add(outcome, result_.targets);
  result_.by_model[request.model].Add(outcome, result_.targets);
  result_.lateness.Add(outcome.sent_us);
  if (result_.first_error.empty()) result_.first_error = outcome.error;
}

BenchResult BenchStats::Take() {
  std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(result_, BenchResult{});
}

}  // namespace polyad
