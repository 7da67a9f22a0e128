#include "kernels/cuda/step_graphs.h"

#include <algorithm>
#include <utility>

namespace polyad::cuda {
namespace {

constexpr int64_t kLeastDemand = 2;
constexpr int64_t kMostDemand = 64;
constexpr int64_t kMisses = 16;  // before a rest
constexpr int64_t kFirstRest = 16;
constexpr int64_t kLongestRest = 1024;

}  // namespace

StepGraphs::StepGraphs(Device& device, const StepGraphOptions& options)
    : device_(device),
      options_(options),
      paces_(static_cast<size_t>(options.max_rows + 1)),
      demand_(kLeastDemand) {}

bool StepGraphs::Takes(int64_t rows) {
  if (rows < 1 || rows > options_.max_rows) return false;
  Pace& pace = paces_[static_cast<size_t>(rows)];
  if (pace.rest == 0) return true;
  --pace.rest;
  ++counts_.rested;
  return false;
}

bool StepGraphs::IsFull(const simt::Recording& recording) const {
  return static_cast<int64_t>(recording.items().size()) >= options_.max_items;
}

void StepGraphs::Run(int64_t rows, int part, simt::Recording& recording) {
  if (recording.empty()) return;
  Pace& pace = paces_[static_cast<size_t>(rows)];
  ++now_;
  const auto size = static_cast<int64_t>(recording.items().size());
  if (size <= options_.max_items) {
    Shape& shape = Find({rows, part, recording.ShapeHash()});
    shape.last_use = now_;
    const bool launched =
        shape.graph != nullptr ? LaunchHeld(shape, recording) : MakeAndLaunch(shape, recording);
    if (launched) {
      pace = {};
      return;
    }
  }
  device_.Queue(recording);
  ++counts_.plain;
  Missed(pace);
}

bool StepGraphs::LaunchHeld(Shape& shape, simt::Recording& recording) {
  if (!recording.SameShape(shape.held)) {  // two shapes of one hash
    Drop(shape);
    return false;
  }
  const std::vector<int32_t> changed = recording.DifferencesFrom(shape.held);
  bool as_recorded = changed.empty();
  SIMT_UNLESS("queue.graph_is_stale") if (!as_recorded) {
    as_recorded = shape.graph->Update(recording, changed);
    if (!as_recorded) {
      ++counts_.refused;
      Drop(shape);
      return false;
    }
    std::swap(shape.held, recording);
    ++counts_.changed;
  }
  shape.graph->Launch();
  ++counts_.launched;
  if (++shape.launches == options_.worth_launches) demand_ = std::max(kLeastDemand, demand_ / 2);
  return true;
}

bool StepGraphs::MakeAndLaunch(Shape& shape, simt::Recording& recording) {
  if (++shape.seen < demand_) return false;
  shape.seen = 0;
  shape.graph = device_.MakeGraph(recording);
  if (shape.graph == nullptr) {
    ++counts_.refused;
    demand_ = std::min(kMostDemand, 2 * demand_);
    return false;
  }
  ++counts_.made;
  std::swap(shape.held, recording);
  shape.graph->Launch();
  ++counts_.launched;
  shape.launches = 1;
  return true;
}

// One that was not worth its making makes the next ones rarer.
void StepGraphs::Drop(Shape& shape) {
  if (shape.graph == nullptr) return;
  ++counts_.dropped;
  if (shape.launches < options_.worth_launches) demand_ = std::min(kMostDemand, 2 * demand_);
  shape.graph.reset();
  shape.held.Clear();
  shape.seen = shape.launches = 0;
}

// Room for it is that of the one used longest ago.
StepGraphs::Shape& StepGraphs::Find(const Key& key) {
  const auto found = shapes_.find(key);
  if (found != shapes_.end()) return found->second;
  if (static_cast<int64_t>(shapes_.size()) >= options_.max_shapes) {
    const auto oldest = std::min_element(
        shapes_.begin(), shapes_.end(),
        [](const auto& a, const auto& b) { return a.second.last_use < b.second.last_use; });
    Drop(oldest->second);
    shapes_.erase(oldest);
  }
  return shapes_[key];
}

void StepGraphs::Missed(Pace& pace) {
  if (++pace.misses < kMisses) return;
  pace.misses = 0;
  pace.rest = pace.next_rest == 0 ? kFirstRest : pace.next_rest;
  pace.next_rest = std::min(kLongestRest, 2 * pace.rest);
}

}  // namespace polyad::cuda
