#include "server/metric_aliases.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "engine/base/check.h"

namespace polyad {
namespace {

struct Alias {
  const char* source;
  const char* name;
};

constexpr Alias kAliases[] = {
    {"polyad_time_to_first_token_seconds", "vllm:time_to_first_token_seconds"},
    {"polyad_inter_token_latency_seconds", "vllm:inter_token_latency_seconds"},
    {"polyad_inter_token_latency_seconds", "vllm:time_per_output_token_seconds"},  // its older name
    {"polyad_e2e_request_latency_seconds", "vllm:e2e_request_latency_seconds"},
    {"polyad_queue_seconds", "vllm:request_queue_time_seconds"},
    {"polyad_step_rows", "vllm:iteration_tokens_total"},
    {"polyad_prompt_tokens_total", "vllm:prompt_tokens_total"},
    {"polyad_generated_tokens_total", "vllm:generation_tokens_total"},
    {"polyad_requests_finished_total", "vllm:request_success_total"},
    {"polyad_preemptions_total", "vllm:num_preemptions_total"},
    {"polyad_prefix_queries_total", "vllm:prefix_cache_queries_total"},
    {"polyad_prefix_hits_total", "vllm:prefix_cache_hits_total"},
};

// Labels and values that vLLM calls otherwise.
void Translate(prometheus::ClientMetric& metric) {
  for (auto& label : metric.label) {
    if (label.name == "reason") label.name = "finished_reason";
    if (label.value == "cancelled") label.value = "abort";
  }
}

}  // namespace

void AppendVllmAliases(std::vector<prometheus::MetricFamily>& families) {
  families.reserve(families.size() + std::size(kAliases));
  for (const Alias& alias : kAliases) {
    const auto source = std::find_if(families.begin(), families.end(), [&](const auto& family) {
      return family.name == alias.source;
    });
    POLYAD_CHECK(source != families.end(), alias.source);
    prometheus::MetricFamily copy = *source;
    copy.name = alias.name;
    copy.help = "As " + std::string(alias.source) + ", under vLLM's name.";
    for (prometheus::ClientMetric& metric : copy.metric) Translate(metric);
    families.push_back(std::move(copy));
  }
}

}  // namespace polyad
