#pragma once

// What every front (gRPC data and admin ports, HTTP) shares: references to the engine and to the
// few services around it, all owned by main and outliving the fronts. Each member is thread-safe.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/base/clock.h"
#include "engine/base/worker_pool.h"
#include "engine/engine.h"
#include "server/adapter_registry.h"
#include "server/auth.h"
#include "server/metrics.h"
#include "server/request_codec.h"

namespace polyad {

struct Serving {
  Engine& engine;
  AdapterRegistry& registry;
  const Credentials& credentials;
  Metrics& metrics;
  Clock& clock;
  WorkerPool& loaders;  // adapter loads, two at a time
  WorkerPool& waiters;  // calls that wait: unload, drain
  DecodeLimits limits;
  std::string version;
  int64_t stream_buffer_bytes = 256 << 10;  // unread events of one stream
  int64_t kv_block_size = 16;
  int64_t max_adapters = 0;
  std::atomic<bool> draining{false};
  std::function<void()> on_draining{};  // set before serving; tells health checkers
};

// Adds the metrics of a load to registry.Load.
StatusOr<LoadReport> LoadWithMetrics(Serving& serving, const LoadAdapterSpec& spec,
                                     const AdapterStore::Progress& progress);
// Submits and counts a rejection. `spec.request_id` must be UniqueRequestId's: clients may repeat
// theirs.
Status SubmitRequest(Serving& serving, RequestSpec spec, std::shared_ptr<ResponseSink> sink);
// "<the client's id>-<number>", never twice in this process.
std::string UniqueRequestId(const std::string& client_id);
// Refuses new requests and waits until none is left, or `wait_ms` is over.
bool DrainServing(Serving& serving, int64_t wait_ms);

}  // namespace polyad
