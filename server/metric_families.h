#pragma once

// The part of /metrics that is made when somebody asks: the gauges and counters of an EngineLoad,
// the adapters' residency, and per-adapter traffic with a bounded number of series. Names: the
// Gateway API Inference Extension's model server protocol (vllm:*), so that its routers work
// unchanged, and polyad_* beside it.

#include <prometheus/metric_family.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request/token_event.h"
#include "server/metrics.h"

namespace polyad {

void AppendEngineFamilies(const MetricsSnapshot& snapshot,
                          std::vector<prometheus::MetricFamily>& families);
void AppendAdapterFamilies(const MetricsSnapshot& snapshot,
                           std::vector<prometheus::MetricFamily>& families);

// Requests and tokens per adapter. Every sum that was shown once only grows: an adapter that gets
// its own series later starts it at zero and leaves what it had in `other`. Not thread-safe.
class AdapterTraffic {
 public:
  AdapterTraffic(size_t max_series, size_t max_tracked)
      : max_series_(max_series), max_tracked_(max_tracked) {}

  void Add(const std::string& adapter, const Usage& usage);
  void AddUnknown() { ++unknown_.requests; }
  // Gives the busiest adapters the free series first.
  void AppendFamilies(std::vector<prometheus::MetricFamily>& families);

 private:
  struct Counts {
    int64_t requests = 0;
    int64_t prompt_tokens = 0;
    int64_t generated_tokens = 0;
    void Add(const Usage& usage);
    void Subtract(const Counts& counts);
  };
  void Promote();

  const size_t max_series_;
  const size_t max_tracked_;
  std::map<std::string, Counts> shown_;
  std::map<std::string, Counts> tracked_;  // adapters without a series, counted in other_ too
  Counts other_;
  Counts unknown_;
  bool was_shown_ = false;
};

}  // namespace polyad
