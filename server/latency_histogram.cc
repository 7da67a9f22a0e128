#include "server/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace polyad {
namespace {

// Values below 2^11 have a bucket each; each later power of two has 2^10.
constexpr int kExactBits = 11;
constexpr int kSplitBits = 10;

int32_t BucketOf(int64_t us) {
  const int bits = std::bit_width(static_cast<uint64_t>(us));
  if (bits <= kExactBits) return static_cast<int32_t>(us);
  const int shift = bits - kExactBits;
  return static_cast<int32_t>((int64_t{shift} << kSplitBits) + (us >> shift));
}

// The middle of a bucket.
double ValueOf(int32_t bucket) {
  if (bucket < 1 << kExactBits) return bucket;
  const int shift = (bucket >> kSplitBits) - 1;
  const int64_t low = (int64_t{bucket} - (int64_t{shift} << kSplitBits)) << shift;
  return static_cast<double>(low) + static_cast<double>((int64_t{1} << shift) - 1) / 2;
}

}  // namespace

void LatencyHistogram::Add(int64_t us) {
  us = std::clamp<int64_t>(us, 0, kLargestUs);
  ++counts_[BucketOf(us)];
  ++count_;
  const auto value = static_cast<double>(us);
  sum_us_ += value;
  sum_squares_us_ += value * value;
}

void LatencyHistogram::Merge(const LatencyHistogram& other) {
  for (const auto& [bucket, count] : other.counts_) counts_[bucket] += count;
  count_ += other.count_;
  sum_us_ += other.sum_us_;
  sum_squares_us_ += other.sum_squares_us_;
}

double LatencyHistogram::MeanMs() const {
  return count_ == 0 ? 0 : sum_us_ / static_cast<double>(count_) / 1e3;
}

double LatencyHistogram::DeviationMs() const {
  if (count_ == 0) return 0;
  const double mean = sum_us_ / static_cast<double>(count_);
  return std::sqrt(std::max(0.0, sum_squares_us_ / static_cast<double>(count_) - mean * mean)) /
         1e3;
}

double LatencyHistogram::RankUs(int64_t rank) const {
  for (const auto& [bucket, count] : counts_) {
    if (rank < count) return ValueOf(bucket);
    rank -= count;
  }
  return 0;
}

double LatencyHistogram::PercentileMs(double percent) const {
  if (count_ == 0) return 0;
  const double position = static_cast<double>(count_ - 1) * percent / 100;
  const auto low = static_cast<int64_t>(position);
  const double at_low = RankUs(low);
  const double at_high = RankUs(std::min(low + 1, count_ - 1));
  return (at_low + (at_high - at_low) * (position - static_cast<double>(low))) / 1e3;
}

}  // namespace polyad
