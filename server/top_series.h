#pragma once

// Sums by name with a bounded number of series: the first `max_series` names by traffic each have
// their own, the rest share `other`. Every sum that was shown once only grows: a name that gets its
// own series later starts it at zero and leaves what it had in `other`. A thing called "other" or
// "unknown" has no series of its own, which would be a second one of that name. Not thread-safe.

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace polyad {

class TopSeries {
 public:
  // What the columns are is their owner's; the first one's sum decides who is busy.
  using Sums = std::array<int64_t, 5>;

  // At most `max_tracked` names are counted apart while they have no series.
  TopSeries(size_t max_series, size_t max_tracked)
      : max_series_(max_series), max_tracked_(max_tracked) {}

  void Add(const std::string& name, const Sums& sums);
  // Gives the busiest names the free series. To be called when the sums are about to be shown.
  void Promote();

  const std::map<std::string, Sums>& shown() const { return shown_; }
  const Sums& other() const { return other_; }

 private:
  const size_t max_series_;
  const size_t max_tracked_;
  std::map<std::string, Sums> shown_;
  std::map<std::string, Sums> tracked_;  // names without a series, counted in other_ too
  Sums other_ = {};
  bool was_shown_ = false;
};

}  // namespace polyad
