#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "server/metric_aliases.h"
#include "server/metric_families.h"
#include "server/request_log.h"

namespace polyad {
namespace {

using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;

constexpr size_t kMaxTrackedAdapters = 4096;
constexpr size_t kMaxTrackedTenants = 4096;  // a tenants file's

Buckets LatencyBuckets() {  // seconds: 1 ms to 2 min
  return {0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25,
          0.5,   0.75,   1,     2.5,  5,    7.5,  10,   20,   40,  120};
}

Buckets RowBuckets() { return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048}; }

Histogram& MakeHistogram(prometheus::Registry& registry, const std::string& name,
                         const std::string& help, const Buckets& buckets) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
}

}  // namespace

struct Metrics::Series {
  using CounterFamily = prometheus::Family<prometheus::Counter>;

  prometheus::Registry registry;
  Histogram& first_token = MakeHistogram(registry, "polyad_time_to_first_token_seconds",
                                         "From arrival to the first token.", LatencyBuckets());
  Histogram& token_gap = MakeHistogram(registry, "polyad_inter_token_latency_seconds",
                                       "Between two tokens of one choice.", LatencyBuckets());
  Histogram& end_to_end = MakeHistogram(registry, "polyad_e2e_request_latency_seconds",
                                        "From arrival to the last token.", LatencyBuckets());
  Histogram& queue = MakeHistogram(registry, "polyad_queue_seconds", "From arrival to admission.",
                                   LatencyBuckets());
  Histogram& adapter_wait = MakeHistogram(registry, "polyad_adapter_wait_seconds",
                                          "Waiting for an adapter.", LatencyBuckets());
  Histogram& step =
      MakeHistogram(registry, "polyad_step_seconds", "One engine step.", LatencyBuckets());
  Histogram& step_rows =
      MakeHistogram(registry, "polyad_step_rows", "Token rows of one step.", RowBuckets());
  Histogram& batch_size =
      MakeHistogram(registry, "polyad_batch_size", "Sequences in one step.", RowBuckets());
  Histogram& load_seconds = MakeHistogram(registry, "polyad_adapter_load_seconds",
                                          "Adapter loads that succeeded.", LatencyBuckets());
  CounterFamily& load_failures = prometheus::BuildCounter()
                                     .Name("polyad_adapter_load_failures_total")
                                     .Help("Adapter loads that were refused.")
                                     .Register(registry);
  CounterFamily& finished = prometheus::BuildCounter()
                                .Name("polyad_requests_finished_total")
                                .Help("Choices that ended, by reason.")
                                .Register(registry);
  CounterFamily& rejected = prometheus::BuildCounter()
                                .Name("polyad_requests_rejected_total")
                                .Help("Requests refused before they ran, by status code.")
                                .Register(registry);
  CounterFamily& quotas = prometheus::BuildCounter()
                              .Name("polyad_quota_refusals_total")
                              .Help("Requests that a tenant's quota refused, by quota.")
                              .Register(registry);
  CounterFamily& reloads = prometheus::BuildCounter()
                               .Name("polyad_credentials_reloads_total")
                               .Help("Times that credential files were read again, by result.")
                               .Register(registry);
  prometheus::Gauge& stale = prometheus::BuildGauge()
                                 .Name("polyad_credentials_stale")
                                 .Help("1 while the newest credential files are not in force.")
                                 .Register(registry)
                                 .Add({});
  CounterFamily& tls_reloads = prometheus::BuildCounter()
                                   .Name("polyad_tls_reloads_total")
                                   .Help("Times that TLS files were read again, by result.")
                                   .Register(registry);
  prometheus::Gauge& tls_stale = prometheus::BuildGauge()
                                     .Name("polyad_tls_stale")
                                     .Help("1 while the newest TLS files are not in force.")
                                     .Register(registry)
                                     .Add({});
  prometheus::Family<prometheus::Gauge>& tls_expiry =
      prometheus::BuildGauge()
          .Name("polyad_tls_certificate_expiry_seconds")
          .Help("When the certificate in force ends, in seconds since 1970; absent without TLS.")
          .Register(registry);
  prometheus::Counter& stalls = prometheus::BuildCounter()
                                    .Name("polyad_engine_stalls_total")
                                    .Help("Steps that did not end in time.")
                                    .Register(registry)
                                    .Add({});

  mutable std::mutex mutex;  // guards `adapters` and `tenants`
  mutable AdapterTraffic adapters{kMaxAdapterSeries, kMaxTrackedAdapters};
  mutable TenantTraffic tenants{kMaxTenantSeries, kMaxTrackedTenants};
};

// A counter that is there from the start: one that appears with its first event has no rate then,
// and a sum with it has no value before.
Metrics::Metrics() : series_(std::make_unique<Series>()) {
  series_->load_failures.Add({});
  for (const FinishReason reason : {FinishReason::kStop, FinishReason::kLength,
                                    FinishReason::kCancelled, FinishReason::kError}) {
    series_->finished.Add({{"reason", std::string(ReasonText(reason))}});
  }
  for (const absl::StatusCode code :
       {absl::StatusCode::kInvalidArgument, absl::StatusCode::kNotFound,
        absl::StatusCode::kResourceExhausted, absl::StatusCode::kFailedPrecondition,
        absl::StatusCode::kUnavailable, absl::StatusCode::kUnauthenticated,
        absl::StatusCode::kPermissionDenied}) {
    series_->rejected.Add({{"reason", absl::StatusCodeToString(code)}});
  }
  for (const char* quota : {"max_requests", "max_queued", "tokens_per_second"}) {
    series_->quotas.Add({{"quota", quota}});
  }
  for (const char* result : {"ok", "refused"}) {
    series_->reloads.Add({{"result", result}});
    series_->tls_reloads.Add({{"result", result}});
  }
}
Metrics::~Metrics() = default;

void Metrics::OnStep(int64_t num_rows, int64_t num_sequences, double step_ms) {
  series_->step.Observe(step_ms / 1e3);
  series_->step_rows.Observe(static_cast<double>(num_rows));
  series_->batch_size.Observe(static_cast<double>(num_sequences));
}

void Metrics::OnTokenGap(double inter_token_ms) {
  series_->token_gap.Observe(inter_token_ms / 1e3);
}

void Metrics::OnRequestDone(const RequestDone& done) {
  if (done.usage.completion_tokens > 0) {
    series_->first_token.Observe(done.time_to_first_token_ms / 1e3);
  }
  series_->end_to_end.Observe(done.end_to_end_ms / 1e3);
  series_->queue.Observe(done.timings.queue_ms / 1e3);
  series_->adapter_wait.Observe(done.timings.adapter_wait_ms / 1e3);
  series_->finished.Add({{"reason", std::string(ReasonText(done.reason))}}).Increment();
  std::lock_guard<std::mutex> lock(series_->mutex);
  series_->adapters.Add(done.adapter, done.usage);
}

void Metrics::OnRefused(const std::string& tenant, absl::StatusCode code,
                        const std::string& quota) {
  OnRejected(code);
  if (!quota.empty()) series_->quotas.Add({{"quota", quota}}).Increment();
  std::lock_guard<std::mutex> lock(series_->mutex);
  series_->tenants.AddRefused(tenant);
}

void Metrics::OnRequestEnded(const EndedRequest& ended) {
  std::lock_guard<std::mutex> lock(series_->mutex);
  series_->tenants.Add(ended);
}

void Metrics::OnCredentials(bool ok) {
  series_->reloads.Add({{"result", ok ? "ok" : "refused"}}).Increment();
  series_->stale.Set(ok ? 0 : 1);
}

void Metrics::OnTlsReload(bool ok) {
  series_->tls_reloads.Add({{"result", ok ? "ok" : "refused"}}).Increment();
  series_->tls_stale.Set(ok ? 0 : 1);
}

void Metrics::SetTlsExpiry(int64_t unix_s) {
  series_->tls_expiry.Add({}).Set(static_cast<double>(unix_s));
}

void Metrics::OnStall() { series_->stalls.Increment(); }

void Metrics::OnRejected(absl::StatusCode code) {
  series_->rejected.Add({{"reason", absl::StatusCodeToString(code)}}).Increment();
  if (code != absl::StatusCode::kNotFound) return;
  std::lock_guard<std::mutex> lock(series_->mutex);
  series_->adapters.AddUnknown();
}

void Metrics::OnAdapterLoad(bool ok, double seconds) {
  if (ok) {
    series_->load_seconds.Observe(seconds);
  } else {
    series_->load_failures.Add({}).Increment();
  }
}

std::string Metrics::Render(const MetricsSnapshot& snapshot) const {
  std::vector<prometheus::MetricFamily> families = series_->registry.Collect();
  AppendEngineFamilies(snapshot, families);
  AppendAdapterFamilies(snapshot, families);
  AppendProcessFamilies(snapshot, families);
  AppendVllmAliases(families);
  {
    std::lock_guard<std::mutex> lock(series_->mutex);
    series_->adapters.AppendFamilies(families);
    series_->adapters.AppendResidence(snapshot, families);
    series_->tenants.AppendFamilies(snapshot.tenants, families);
  }
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace polyad
