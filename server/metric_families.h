#pragma once

// The part of /metrics that is made when somebody asks: the gauges and counters of an EngineLoad,
// the adapters' residency, and traffic by adapter and by tenant with a bounded number of series.
// Names: the Gateway API Inference Extension's model server protocol (vllm:*), so that its routers
// work unchanged, and polyad_* beside it.

#include <prometheus/metric_family.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/request/token_event.h"
#include "server/metrics.h"
#include "server/top_series.h"

namespace polyad {

void AppendEngineFamilies(const MetricsSnapshot& snapshot,
                          std::vector<prometheus::MetricFamily>& families);
void AppendAdapterFamilies(const MetricsSnapshot& snapshot,
                           std::vector<prometheus::MetricFamily>& families);

void AppendProcessFamilies(const MetricsSnapshot& snapshot,
                           std::vector<prometheus::MetricFamily>& families);

// Requests and tokens per adapter, the busiest apart (top_series.h). Not thread-safe.
class AdapterTraffic {
 public:
  AdapterTraffic(size_t max_series, size_t max_tracked) : series_(max_series, max_tracked) {}

  void Add(const std::string& adapter, const Usage& usage);
  void AddUnknown() { ++num_unknown_; }
  // Gives the busiest adapters the free series first.
  void AppendFamilies(std::vector<prometheus::MetricFamily>& families);
  // Whether those of the last AppendFamilies are in memory.
  void AppendResidence(const MetricsSnapshot& snapshot,
                       std::vector<prometheus::MetricFamily>& families) const;

 private:
  TopSeries series_;
  int64_t num_unknown_ = 0;
};

// What each tenant had and what it was refused, the busiest apart (top_series.h). Not thread-safe.
class TenantTraffic {
 public:
  TenantTraffic(size_t max_series, size_t max_tracked) : series_(max_series, max_tracked) {}

  void Add(const EndedRequest& ended);
  void AddRefused(const std::string& tenant);
  // `now`: of the tenants that have requests now.
  void AppendFamilies(const std::vector<TenantGate::TenantCounts>& now,
                      std::vector<prometheus::MetricFamily>& families);

 private:
  TopSeries series_;
};

}  // namespace polyad
