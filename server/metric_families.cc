#include "server/metric_families.h"

#include <algorithm>

namespace polyad {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Families = std::vector<MetricFamily>;
using Labels = std::vector<ClientMetric::Label>;

MetricFamily& AddFamily(const std::string& name, const std::string& help, MetricType type,
                        Families& families) {
  families.push_back({name, help, type, {}});
  return families.back();
}

void AddValue(MetricFamily& family, Labels labels, double value) {
  ClientMetric metric;
  metric.label = std::move(labels);
  if (family.type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family.metric.push_back(std::move(metric));
}

void AddGauge(const std::string& name, const std::string& help, double value, Families& families) {
  AddValue(AddFamily(name, help, MetricType::Gauge, families), {}, value);
}

void AddCounter(const std::string& name, const std::string& help, int64_t value,
                Families& families) {
  AddValue(AddFamily(name, help, MetricType::Counter, families), {}, static_cast<double>(value));
}

std::string Join(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) {
    if (!out.empty()) out += ',';
    out += name;
  }
  return out;
}

// Tiers of polyad_adapters.
constexpr char kResidentTier[] = "device";
constexpr char kFileTier[] = "disk";

std::vector<std::string> ServingNames(const MetricsSnapshot& snapshot) {
  std::vector<std::string> names;
  for (const AdapterInfo& adapter : snapshot.adapters) {
    if (!adapter.retired && !adapter.kept) names.push_back(adapter.report.name);
  }
  return names;
}

// Every series always, so that a sum over some of them never misses one.
void AppendBytes(const MetricsSnapshot& snapshot, Families& families) {
  MetricFamily& family = AddFamily(
      "polyad_weight_bytes", "Bytes of weights in memory, by what they are of and the precision.",
      MetricType::Gauge, families);
  const auto add = [&family](const char* part, const PrecisionBytes& bytes) {
    for (const Precision precision : kPrecisions) {
      AddValue(family, {{"part", part}, {"precision", std::string(NameOf(precision))}},
               static_cast<double>(bytes[precision]));
    }
  };
  add("base_embeddings", snapshot.weight_bytes.embeddings);
  add("base_layers", snapshot.weight_bytes.layers);
  add("adapters", snapshot.adapter_bytes);
}

}  // namespace

void AppendEngineFamilies(const MetricsSnapshot& snapshot, Families& families) {
  const EngineLoad& load = snapshot.load;
  const double used = load.num_kv_blocks > 0 ? static_cast<double>(load.num_kv_blocks_used) /
                                                   static_cast<double>(load.num_kv_blocks)
                                             : 0.0;
  AddGauge("vllm:num_requests_waiting", "Requests queued.", static_cast<double>(load.num_waiting),
           families);
  AddGauge("polyad_queued_tokens", "Tokens that waiting requests may cost at most.",
           static_cast<double>(snapshot.gate.queued_tokens), families);
  AddGauge("polyad_request_bytes", "Memory of all requests' prompts.",
           static_cast<double>(snapshot.gate.held_bytes), families);
  AddGauge("polyad_engine_stalled", "1 while a step takes too long.", snapshot.stalled ? 1 : 0,
           families);
  AddGauge("vllm:num_requests_running", "Sequences in the running batch.",
           static_cast<double>(load.num_running), families);
  AddGauge("vllm:kv_cache_usage_perc", "Fraction of the K/V blocks in use, 0 to 1.", used,
           families);
  AddValue(AddFamily("vllm:cache_config_info", "The K/V pool.", MetricType::Gauge, families),
           {{"block_size", std::to_string(snapshot.block_size)},
            {"bytes_per_token", std::to_string(snapshot.kv_bytes_per_token)},
            {"cache_dtype", snapshot.kv_format},
            {"num_gpu_blocks", std::to_string(load.num_kv_blocks)}},
           1);
  AddGauge("polyad_kv_blocks", "K/V blocks of the pool.", static_cast<double>(load.num_kv_blocks),
           families);
  AddGauge("polyad_kv_blocks_used", "K/V blocks held by sequences.",
           static_cast<double>(load.num_kv_blocks_used), families);
  AddGauge("polyad_kv_blocks_cached", "Free K/V blocks that hold a reusable prefix.",
           static_cast<double>(load.num_kv_blocks_cached), families);
  AddGauge("polyad_kv_blocks_shared", "K/V blocks held by several sequences at once.",
           static_cast<double>(load.num_kv_blocks_shared), families);
  AddGauge("polyad_kv_blocks_soft_prompt", "K/V blocks of adapters' soft prompts, in use or not.",
           static_cast<double>(load.num_kv_blocks_soft_prompt), families);
  MetricFamily& spilled =
      AddFamily("polyad_kv_blocks_spilled", "Evicted K/V blocks kept elsewhere.", MetricType::Gauge,
                families);
  AddValue(spilled, {{"tier", "memory"}}, static_cast<double>(load.num_kv_blocks_in_memory));
  AddValue(spilled, {{"tier", "file"}}, static_cast<double>(load.num_kv_blocks_in_file));
  AddCounter("polyad_kv_blocks_saved_total", "K/V blocks kept elsewhere when evicted.",
             load.num_kv_blocks_saved, families);
  AddCounter("polyad_kv_blocks_restored_total", "K/V blocks copied back rather than computed.",
             load.num_kv_blocks_restored, families);
  if (load.memory_bytes.total > 0) {
    MetricFamily& memory =
        AddFamily("polyad_memory_bytes", "Memory that K/V and adapters share, by what it is for.",
                  MetricType::Gauge, families);
    AddValue(memory, {{"kind", "kv"}}, static_cast<double>(load.memory_bytes.kv));
    AddValue(memory, {{"kind", "prefix"}}, static_cast<double>(load.memory_bytes.prefix));
    AddValue(memory, {{"kind", "adapters"}}, static_cast<double>(load.memory_bytes.adapters));
    AddValue(memory, {{"kind", "free"}}, static_cast<double>(load.memory_bytes.free));
  }
  AddGauge("polyad_draining", "1 while new requests are refused.", load.draining ? 1 : 0, families);
  AddGauge("polyad_last_step_age_seconds", "Since the engine's last step.",
           static_cast<double>(load.last_step_age_ms) / 1e3, families);
  AddCounter("polyad_steps_total", "Engine steps.", load.num_steps, families);
  AddCounter("polyad_preemptions_total", "Sequences put back for want of memory.",
             load.num_preemptions, families);
  AddCounter("polyad_prompt_tokens_total", "Prompt tokens read.", load.prompt_tokens, families);
  AddCounter("polyad_generated_tokens_total", "Tokens generated.", load.generated_tokens, families);
  AddCounter("polyad_prefix_queries_total", "Prompt tokens looked up in the prefix cache.",
             load.prefix_queries, families);
  AddCounter("polyad_prefix_hits_total", "Prompt tokens found in the prefix cache.",
             load.prefix_hits, families);
  AddCounter("polyad_soft_prompt_tokens_total",
             "Tokens of soft prompts computed or stored: once for each load.",
             load.soft_prompt_tokens, families);
}

void AppendAdapterFamilies(const MetricsSnapshot& snapshot, Families& families) {
  // One series always. "Running" means ready to serve, which is what a router wants to know.
  AddValue(AddFamily("vllm:lora_requests_info",
                     "Adapters ready and waiting; the value is the time of this line.",
                     MetricType::Gauge, families),
           {{"max_lora", std::to_string(snapshot.max_adapters)},
            {"running_lora_adapters", Join(ServingNames(snapshot))},
            {"waiting_lora_adapters", Join(snapshot.load.waiting_adapters)}},
           static_cast<double>(snapshot.now_unix_seconds));
  std::map<std::pair<const char*, std::string>, int64_t> by_family;
  for (const AdapterInfo& adapter : snapshot.adapters) {
    ++by_family[{adapter.resident ? kResidentTier : kFileTier, adapter.report.family}];
  }
  MetricFamily& adapters =
      AddFamily("polyad_adapters", "Adapters, by tier and family.", MetricType::Gauge, families);
  for (const auto& [key, count] : by_family) {
    AddValue(adapters, {{"tier", key.first}, {"family", key.second}}, static_cast<double>(count));
  }
  AddCounter("polyad_adapters_swapped_out_total", "Adapters let go of to make room for others.",
             snapshot.adapter_swaps.swapped_out, families);
  AddCounter("polyad_adapters_read_back_total", "Swapped-out adapters read again for a request.",
             snapshot.adapter_swaps.read_back, families);
  AddGauge("polyad_adapter_bytes", "Bytes held by resident adapters.",
           static_cast<double>(snapshot.adapter_bytes.total()), families);
  AppendBytes(snapshot, families);
}

void AdapterTraffic::Counts::Add(const Usage& usage) {
  ++requests;
  prompt_tokens += usage.prompt_tokens;
  generated_tokens += usage.completion_tokens;
}

void AdapterTraffic::Counts::Subtract(const Counts& counts) {
  requests -= counts.requests;
  prompt_tokens -= counts.prompt_tokens;
  generated_tokens -= counts.generated_tokens;
}

void AdapterTraffic::Add(const std::string& adapter, const Usage& usage) {
  if (const auto shown = shown_.find(adapter); shown != shown_.end()) {
    shown->second.Add(usage);
    return;
  }
  other_.Add(usage);
  if (tracked_.size() < max_tracked_ || tracked_.contains(adapter)) tracked_[adapter].Add(usage);
}

void AdapterTraffic::Promote() {
  while (shown_.size() < max_series_ && !tracked_.empty()) {
    const auto busiest = std::max_element(
        tracked_.begin(), tracked_.end(),
        [](const auto& a, const auto& b) { return a.second.requests < b.second.requests; });
    Counts& counts = shown_[busiest->first];
    if (!was_shown_) {
      counts = busiest->second;
      other_.Subtract(counts);
    }
    tracked_.erase(busiest);
  }
  was_shown_ = true;
}

void AdapterTraffic::AppendFamilies(Families& families) {
  Promote();
  struct Column {
    const char* name;
    const char* help;
    int64_t Counts::*field;
  };
  for (const Column& column :
       {Column{"polyad_adapter_requests_total", "Choices ended, by adapter.", &Counts::requests},
        Column{"polyad_adapter_prompt_tokens_total", "Prompt tokens, by adapter.",
               &Counts::prompt_tokens},
        Column{"polyad_adapter_generated_tokens_total", "Tokens generated, by adapter.",
               &Counts::generated_tokens}}) {
    MetricFamily& family = AddFamily(column.name, column.help, MetricType::Counter, families);
    for (const auto& [name, counts] : shown_) {
      AddValue(family, {{"adapter", name}}, static_cast<double>(counts.*column.field));
    }
    AddValue(family, {{"adapter", "other"}}, static_cast<double>(other_.*column.field));
    AddValue(family, {{"adapter", "unknown"}}, static_cast<double>(unknown_.*column.field));
  }
}

}  // namespace polyad
