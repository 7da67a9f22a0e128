#include "server/serving.h"

#include "engine/base/log.h"

namespace polyad {

StatusOr<LoadReport> LoadWithMetrics(Serving& serving, const LoadAdapterSpec& spec,
                                     const AdapterStore::Progress& progress) {
  const int64_t begin_us = serving.clock.NowMicros();
  StatusOr<LoadReport> report = serving.registry.Load(spec, progress);
  const double seconds = static_cast<double>(serving.clock.NowMicros() - begin_us) / 1e6;
  serving.metrics.OnAdapterLoad(report.ok(), seconds);
  if (report.ok()) {
    Log(LogLevel::kInfo, "adapter_loaded",
        {{"name", report->name}, {"version", report->version}, {"seconds", seconds}});
  } else {
    Log(LogLevel::kWarning, "adapter_refused",
        {{"name", spec.name}, {"why", std::string(report.status().message())}});
  }
  return report;
}

std::string UniqueRequestId(const std::string& client_id) {
  static std::atomic<uint64_t> next{1};
  return absl::StrFormat("%s-%x", client_id.empty() ? "request" : client_id,
                         next.fetch_add(1, std::memory_order_relaxed));
}

Status SubmitRequest(Serving& serving, RequestSpec spec, std::shared_ptr<ResponseSink> sink) {
  const auto id = serving.engine.Submit(std::move(spec), std::move(sink));
  if (!id.ok()) serving.metrics.OnRejected(id.status().code());
  return id.status();
}

bool DrainServing(Serving& serving, int64_t wait_ms) {
  serving.draining.store(true);
  if (serving.on_draining) serving.on_draining();
  Log(LogLevel::kInfo, "draining", {{"wait_ms", wait_ms}});
  return serving.engine.Drain(wait_ms);
}

}  // namespace polyad
