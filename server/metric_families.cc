#include "server/metric_families.h"

#include <map>
#include <string_view>
#include <utility>

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

void AppendName(const std::string& name, std::string& list) {
  if (!list.empty()) list += ',';
  list += name;
}

std::string Join(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) AppendName(name, out);
  return out;
}

// Tiers of polyad_adapters.
constexpr char kResidentTier[] = "device";
constexpr char kFileTier[] = "disk";

// Those that a request need not wait for.
std::string ResidentNames(const MetricsSnapshot& snapshot) {
  std::string names;
  for (const AdapterSummary& adapter : snapshot.adapters) {
    if (adapter.serves && adapter.resident) AppendName(adapter.name, names);
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
  // One series always. "Running" means in memory, which is what a router wants to know.
  AddValue(AddFamily("vllm:lora_requests_info",
                     "Adapters ready and waiting; the value is the time of this line.",
                     MetricType::Gauge, families),
           {{"max_lora", std::to_string(snapshot.max_adapters)},
            {"running_lora_adapters", ResidentNames(snapshot)},
            {"waiting_lora_adapters", Join(snapshot.load.waiting_adapters)}},
           static_cast<double>(snapshot.now_unix_seconds));
  std::map<std::pair<const char*, std::string>, int64_t> by_family;
  for (const AdapterSummary& adapter : snapshot.adapters) {
    ++by_family[{adapter.resident ? kResidentTier : kFileTier, adapter.family}];
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

void AppendProcessFamilies(const MetricsSnapshot& snapshot, Families& families) {
  AddValue(AddFamily("polyad_build_info", "The program's version.", MetricType::Gauge, families),
           {{"version", snapshot.version}}, 1);
  AddGauge("polyad_registry_durable", "1 where adapters loaded while serving survive the process.",
           snapshot.registry.is_durable ? 1 : 0, families);
  AddCounter("polyad_registry_write_failures_total",
             "Changes of adapters that were made but could not be recorded on disk.",
             snapshot.registry.write_failures, families);
  AddCounter("polyad_registry_restore_failures_total",
             "Adapters, aliases and shares that the start could not bring back.",
             snapshot.registry.restore_failures, families);
  const ReconcileCounts& reconcile = snapshot.reconcile;
  MetricFamily& declared =
      AddFamily("polyad_reconcile_adapters",
                "Adapters that --adapters-from declares, and names whose last try failed.",
                MetricType::Gauge, families);
  AddValue(declared, {{"state", "declared"}}, static_cast<double>(reconcile.declared));
  AddValue(declared, {{"state", "in_place"}}, static_cast<double>(reconcile.in_place));
  AddValue(declared, {{"state", "failing"}}, static_cast<double>(reconcile.failing));
  MetricFamily& changes =
      AddFamily("polyad_reconcile_changes_total",
                "Adapters loaded and unloaded for --adapters-from.", MetricType::Counter, families);
  AddValue(changes, {{"change", "loaded"}}, static_cast<double>(reconcile.loads));
  AddValue(changes, {{"change", "unloaded"}}, static_cast<double>(reconcile.unloads));
  AddCounter("polyad_reconcile_failures_total",
             "Tries to make an adapter what --adapters-from declares that failed.",
             reconcile.failures, families);
  MetricFamily& files = AddFamily("polyad_reconcile_file_reads_total",
                                  "Times that the file of --adapters-from was read, by result.",
                                  MetricType::Counter, families);
  AddValue(files, {{"result", "ok"}}, static_cast<double>(reconcile.files_taken));
  AddValue(files, {{"result", "refused"}}, static_cast<double>(reconcile.files_refused));
  AddGauge("polyad_reconcile_file_stale",
           "1 while the newest file of --adapters-from is not in force.",
           reconcile.is_stale ? 1 : 0, families);
  AddGauge("process_start_time_seconds", "When the process began, in seconds since 1970.",
           snapshot.process.start_unix_s, families);
  AddGauge("process_resident_memory_bytes", "Memory of the process.",
           static_cast<double>(snapshot.process.resident_bytes), families);
  AddValue(AddFamily("process_cpu_seconds_total", "CPU time of all threads.", MetricType::Counter,
                     families),
           {}, snapshot.process.cpu_seconds);
}

namespace {

// One column of a TopSeries as a family.
struct Column {
  const char* name;
  const char* help;
  size_t index;
  double unit = 1;  // of what is shown, in what is counted
};

MetricFamily& AddColumn(const Column& column, const char* label, const TopSeries& series,
                        Families& families) {
  const auto shown = [&](const TopSeries::Sums& sums) {
    return static_cast<double>(sums[column.index]) / column.unit;
  };
  MetricFamily& family = AddFamily(column.name, column.help, MetricType::Counter, families);
  for (const auto& [name, sums] : series.shown()) AddValue(family, {{label, name}}, shown(sums));
  AddValue(family, {{label, "other"}}, shown(series.other()));
  return family;
}

std::string TenantLabel(const std::string& tenant) {
  return tenant.empty() ? kNamelessTenant : tenant;
}

}  // namespace

void AdapterTraffic::Add(const std::string& adapter, const Usage& usage) {
  series_.Add(adapter, {1, usage.prompt_tokens, usage.completion_tokens});
}

void AdapterTraffic::AppendFamilies(Families& families) {
  series_.Promote();
  MetricFamily& requests =
      AddColumn({"polyad_adapter_requests_total", "Choices ended, by adapter.", 0}, "adapter",
                series_, families);
  AddValue(requests, {{"adapter", "unknown"}}, static_cast<double>(num_unknown_));
  AddColumn({"polyad_adapter_prompt_tokens_total", "Prompt tokens, by adapter.", 1}, "adapter",
            series_, families);
  AddColumn({"polyad_adapter_generated_tokens_total", "Tokens generated, by adapter.", 2},
            "adapter", series_, families);
}

void AdapterTraffic::AppendResidence(const MetricsSnapshot& snapshot, Families& families) const {
  MetricFamily& family =
      AddFamily("polyad_adapter_resident",
                "1 where the adapter is in memory, 0 where a request would read it back.",
                MetricType::Gauge, families);
  for (const AdapterSummary& adapter : snapshot.adapters) {
    if (!adapter.serves || !series_.shown().contains(adapter.name)) continue;
    AddValue(family, {{"adapter", adapter.name}}, adapter.resident ? 1 : 0);
  }
}

void TenantTraffic::Add(const EndedRequest& ended) {
  const auto queue_us = static_cast<int64_t>(ended.timings.queue_ms * 1e3);
  series_.Add(TenantLabel(ended.tenant),
              {1, 0, ended.usage.prompt_tokens, ended.usage.completion_tokens, queue_us});
}

void TenantTraffic::AddRefused(const std::string& tenant) {
  series_.Add(TenantLabel(tenant), {0, 1});
}

void TenantTraffic::AppendFamilies(const std::vector<TenantGate::TenantCounts>& now,
                                   Families& families) {
  series_.Promote();
  for (const Column& column :
       {Column{"polyad_tenant_requests_total", "Requests that ended, by tenant.", 0},
        Column{"polyad_tenant_refused_total",
               "Requests refused by a quota, the server's bounds or the engine, by tenant.", 1},
        Column{"polyad_tenant_prompt_tokens_total", "Prompt tokens, by tenant.", 2},
        Column{"polyad_tenant_generated_tokens_total", "Tokens generated, by tenant.", 3},
        Column{"polyad_tenant_queue_seconds_total",
               "Time that requests which ended had waited to be admitted, by tenant.", 4, 1e6}}) {
    AddColumn(column, "tenant", series_, families);
  }
  // By label: accepted and not ended, and of those not begun.
  std::map<std::string, std::pair<int64_t, int64_t>> counts = {{"other", {0, 0}}};
  for (const auto& [name, sums] : series_.shown()) counts[name] = {0, 0};
  for (const TenantGate::TenantCounts& tenant : now) {
    const std::string label = TenantLabel(tenant.tenant);
    auto& [requests, queued] = counts[series_.shown().contains(label) ? label : "other"];
    requests += tenant.num_requests;
    queued += tenant.num_queued;
  }
  MetricFamily requests = {"polyad_tenant_requests",
                           "Requests accepted and not yet ended, by tenant.",
                           MetricType::Gauge,
                           {}};
  MetricFamily queued = {
      "polyad_tenant_queued", "Of those, requests that have not begun.", MetricType::Gauge, {}};
  for (const auto& [name, count] : counts) {
    AddValue(requests, {{"tenant", name}}, static_cast<double>(count.first));
    AddValue(queued, {{"tenant", name}}, static_cast<double>(count.second));
  }
  families.push_back(std::move(requests));
  families.push_back(std::move(queued));
}

}  // namespace polyad
