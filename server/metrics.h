#pragma once

// What /metrics shows. Histograms and counters are fed by the engine and delivery threads (a few
// atomic adds each); the gauges are made from EngineLoad snapshots when somebody asks, so a scrape
// never touches the engine thread. Labels hold names of loaded adapters and of the operator's
// tenants only: the first kMaxAdapterSeries and kMaxTenantSeries by traffic each have a series, the
// rest share `other`, adapters nobody loaded are `unknown`. Thread-safe.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/adapters/adapter_store.h"
#include "engine/engine.h"
#include "server/adapter_registry.h"
#include "server/process_usage.h"
#include "server/reconcile_status.h"
#include "server/request_log.h"
#include "server/tenant_gate.h"

namespace polyad {

inline constexpr size_t kMaxAdapterSeries = 32;
inline constexpr size_t kMaxTenantSeries = 32;
// The label of who asks where there is no tenants file; no tenant can be called that.
inline constexpr char kNamelessTenant[] = "-";

// What a scrape adds to the counters.
struct MetricsSnapshot {
  EngineLoad load;
  std::vector<AdapterSummary> adapters;
  PrecisionBytes adapter_bytes;
  WeightBytes weight_bytes;
  AdapterStore::SwapCounts adapter_swaps;
  int64_t block_size = 16;  // tokens per K/V block
  std::string kv_format;    // of the K/V pool
  int64_t kv_bytes_per_token = 0;
  int64_t max_adapters = 0;
  int64_t now_unix_seconds = 0;
  TenantGate::Counts gate;
  std::vector<TenantGate::TenantCounts> tenants;  // that have requests now
  RegistryHealth registry;
  ReconcileCounts reconcile;
  ProcessUsage process;
  std::string version;
  bool stalled = false;
};

class Metrics final : public EngineObserver {
 public:
  Metrics();
  ~Metrics() override;

  void OnStep(int64_t num_rows, int64_t num_sequences, double step_ms) override;
  void OnTokenGap(double inter_token_ms) override;
  void OnRequestDone(const RequestDone& done) override;

  // Of what is no request.
  void OnRejected(absl::StatusCode code);
  // A tenant's request, refused by a quota, the server's bounds or the engine. `quota` is a member
  // of the tenants file, or empty.
  void OnRefused(const std::string& tenant, absl::StatusCode code, const std::string& quota);
  void OnRequestEnded(const EndedRequest& ended);
  void OnCredentials(bool ok);  // files were read again
  void OnTlsReload(bool ok);
  void SetTlsExpiry(int64_t unix_s);  // of the certificate in force
  void OnStall();
  void OnAdapterLoad(bool ok, double seconds);

  // Prometheus text format 0.0.4.
  std::string Render(const MetricsSnapshot& snapshot) const;

 private:
  struct Series;
  std::unique_ptr<Series> series_;
};

}  // namespace polyad
