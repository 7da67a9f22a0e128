#pragma once

// Series that are there a second time under vLLM's names, so that dashboards, autoscalers and
// routers made for vLLM read polyad unchanged: copies of our own histograms and counters, made when
// somebody asks. The gauges that routers read have vLLM's names alone (metric_families.h). Source:
// vLLM's docs/usage/metrics.md. Any thread; no errors.

#include <prometheus/metric_family.h>

#include <vector>

namespace polyad {

// Appends to `families` the copies of those that it holds; each source has to be there.
void AppendVllmAliases(std::vector<prometheus::MetricFamily>& families);

}  // namespace polyad
