#pragma once

// Counts of times in microseconds, in buckets whose width is at most 1/1024 of their value (the
// layout of HDR histograms: Tene 2012): a run of any length takes bounded memory. Sums are exact.
// One owner, one thread at a time.

#include <cstdint>
#include <map>

namespace polyad {

class LatencyHistogram {
 public:
  static constexpr int64_t kLargestUs = int64_t{1} << 40;  // twelve days; longer counts as this

  void Add(int64_t us);  // below 0 counts as 0
  void Merge(const LatencyHistogram& other);

  int64_t count() const { return count_; }
  // Milliseconds; 0 of nothing.
  double MeanMs() const;
  double DeviationMs() const;  // of the population
  // Linear interpolation between the closest ranks, `percent` in [0, 100].
  double PercentileMs(double percent) const;

 private:
  double RankUs(int64_t rank) const;  // of the value that has `rank` smaller ones

  std::map<int32_t, int64_t> counts_;  // by bucket; those with none are absent
  int64_t count_ = 0;
  double sum_us_ = 0;
  double sum_squares_us_ = 0;
};

}  // namespace polyad
