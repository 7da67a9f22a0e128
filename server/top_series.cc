#include "server/top_series.h"

#include <algorithm>

namespace polyad {
namespace {

void AddTo(TopSeries::Sums& sums, const TopSeries::Sums& more) {
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += more[i];
}

void SubtractFrom(TopSeries::Sums& sums, const TopSeries::Sums& less) {
  for (size_t i = 0; i < sums.size(); ++i) sums[i] -= less[i];
}

bool IsReserved(const std::string& name) { return name == "other" || name == "unknown"; }

}  // namespace

void TopSeries::Add(const std::string& name, const Sums& sums) {
  if (const auto shown = shown_.find(name); shown != shown_.end()) {
    AddTo(shown->second, sums);
    return;
  }
  AddTo(other_, sums);
  if (IsReserved(name)) return;
  if (tracked_.size() < max_tracked_ || tracked_.contains(name)) AddTo(tracked_[name], sums);
}

void TopSeries::Promote() {
  while (shown_.size() < max_series_ && !tracked_.empty()) {
    const auto busiest = std::max_element(
        tracked_.begin(), tracked_.end(),
        [](const auto& a, const auto& b) { return a.second.front() < b.second.front(); });
    Sums& sums = shown_[busiest->first];
    if (!was_shown_) {
      sums = busiest->second;
      SubtractFrom(other_, sums);
    }
    tracked_.erase(busiest);
  }
  was_shown_ = true;
}

}  // namespace polyad
