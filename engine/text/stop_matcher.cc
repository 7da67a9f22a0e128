#include "engine/text/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace polyad {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : stops_(std::move(stops)), include_stop_(include_stop) {}

std::optional<StopMatcher::Match> StopMatcher::FirstMatch() const {
  std::optional<Match> best;
  for (size_t i = 0; i < stops_.size(); ++i) {
    const std::string& stop = stops_[i];
    const size_t begin = stop.empty() ? std::string::npos : pending_.find(stop);
    if (begin == std::string::npos) continue;
    const Match match{.begin = begin, .end = begin + stop.size(), .index = static_cast<int>(i)};
    if (!best.has_value() || match.end < best->end ||
        (match.end == best->end && match.begin < best->begin)) {
      best = match;
    }
  }
  return best;
}

// The longest tail of the pending text that a stop begins with.
size_t StopMatcher::HeldBytes() const {
  size_t held = 0;
  for (const std::string& stop : stops_) {
    if (stop.empty()) continue;
    for (size_t size = std::min(stop.size() - 1, pending_.size()); size > held; --size) {
      if (pending_.compare(pending_.size() - size, size, stop, 0, size) == 0) held = size;
    }
  }
  return held;
}

StopMatcher::Result StopMatcher::Push(std::string_view text) {
  if (stopped_) return {};
  pending_ += text;
  if (const std::optional<Match> match = FirstMatch()) {
    stopped_ = true;
    pending_.resize(include_stop_ ? match->end : match->begin);
    return {.text = std::exchange(pending_, {}), .stop_index = match->index};
  }
  const size_t held = HeldBytes();
  Result result{.text = pending_.substr(0, pending_.size() - held), .stop_index = std::nullopt};
  pending_.erase(0, pending_.size() - held);
  return result;
}

std::string StopMatcher::Flush() { return std::exchange(pending_, {}); }

}  // namespace polyad
