#pragma once

// What every front (gRPC data and admin ports, HTTP) shares: references to the engine and to the
// few services around it, all owned by main and outliving the fronts. Each member is thread-safe.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/base/clock.h"
#include "engine/base/worker_pool.h"
#include "engine/engine.h"
#include "server/adapter_quota.h"
#include "server/adapter_registry.h"
#include "server/auth.h"
#include "server/metrics.h"
#include "server/request_codec.h"
#include "server/tenant_gate.h"
#include "server/trace_exporter.h"

namespace polyad {

class AdapterReconciler;

// Of the three listeners.
struct Reaches {
  Reach data = Reach::kBeyond;
  Reach admin = Reach::kBeyond;
  Reach http = Reach::kBeyond;
};

struct Serving {
  Engine& engine;
  AdapterRegistry& registry;
  const Credentials& credentials;
  TenantGate& gate;
  Metrics& metrics;
  Clock& clock;
  WorkerPool& loaders;    // adapter loads, two at a time
  WorkerPool& waiters;    // calls that wait: unload, drain
  WorkerPool& embedders;  // inputs and answers of embed_call.h
  DecodeLimits limits;
  std::string version;
  int64_t stream_buffer_bytes = 256 << 10;  // unread events of one stream
  int64_t kv_block_size = 16;
  int64_t max_adapters = 0;
  std::vector<std::string> adapter_roots{};
  AdapterQuota adapter_quota{};
  std::atomic<bool> draining{false};
  std::atomic<bool> stalled{false};                // watchdog.h
  TraceExporter* traces = nullptr;                 // null: not exported; outlives the engine
  const AdapterReconciler* reconciler = nullptr;   // null: no file declares adapters
  std::function<void(bool ready)> on_readiness{};  // set before serving; tells health checkers
  Reaches reaches{};

  bool ready() const { return !draining.load() && !stalled.load(); }
};

// What a client asked, with its adapter version's defaults for what it does not say and, last,
// `max_tokens` (0: the API's own); checked and bound to that version. `request` is used up.
StatusOr<RequestSpec> DecodeRequest(const Serving& serving, v1::GenerateRequest& request,
                                    std::string tenant, int64_t max_tokens = 0);
// Likewise, without defaults: one for each input, all bound to one version.
StatusOr<std::vector<RequestSpec>> DecodeEmbedRequest(const Serving& serving,
                                                      const v1::EmbedRequest& request,
                                                      std::string tenant);
// registry.Load within the quotas of the tenants that the adapter names, with the metrics of a
// load.
StatusOr<LoadReport> LoadWithMetrics(Serving& serving, const LoadAdapterSpec& spec,
                                     const AdapterStore::Progress& progress);
// What one call's requests have to pass, together and as one; each gets its tenant's share of the
// engine. There is at least one.
StatusOr<std::unique_ptr<TenantGate::Pass>> EnterGate(Serving& serving,
                                                      std::span<RequestSpec> specs);
// Counts a tenant's request that EnterGate or the engine has refused. -> `status`
Status CountRefusal(Metrics& metrics, const std::string& tenant, Status status);
// A request that had entered has ended: its line in the log, its span and its tenant's counts.
void CountEnd(Metrics& metrics, TraceExporter* traces, EndedRequest& ended);
// Submits what passes the tenant's quotas and the server's bounds, and counts a rejection.
// `spec.request_id` must be UniqueRequestId's: clients may repeat theirs.
Status SubmitRequest(Serving& serving, RequestSpec spec, std::shared_ptr<ResponseSink> sink);
// "<the client's id>-<number>", never twice in this process.
std::string UniqueRequestId(const std::string& client_id);
// Says whether the server is ready to whoever asked to be told.
void TellHealth(Serving& serving);
// Refuses new requests and waits until none is left, or `wait_ms` is over.
bool DrainServing(Serving& serving, int64_t wait_ms);

}  // namespace polyad
