#pragma once

// Open-loop load: every request starts at its time, whether or not earlier ones have answered. The
// caller's thread keeps the times; answers are read by gRPC's threads, or by that same thread over
// HTTP. A request that is over is handed to the sink, by whichever thread saw its end.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "server/bench_stats.h"

namespace polyad {

struct BenchLoad {
  std::string target;  // host:port
  std::vector<BenchRequest> requests;
  std::string api_key;                             // empty: none
  std::map<std::string, std::string> tenant_keys;  // instead, of tenants that have one here
  int64_t vocab_size = 32000;
  uint64_t seed = 1;
  int64_t timeout_ms = 600'000;  // of one request, from when it was sent
  double speed = 1;              // the trace's times are divided by this
  // Over HTTP, for llama.cpp's server: models by their index here are its "lora" ids. Empty:
  // polyad.
  std::vector<std::string> llama_loras;

  const std::string& KeyOf(const BenchRequest& request) const;
  // When a request should arrive, in microseconds after the start.
  int64_t ArrivalUs(const BenchRequest& request) const;
};

using BenchSink = std::function<void(const BenchRequest& request, BenchOutcome outcome)>;

// Both return when every request has ended, with the time that arrivals were counted from.
BenchTime RunGrpcLoad(const BenchLoad& load, const BenchSink& sink);
// INVALID_ARGUMENT where the target is no address; UNAVAILABLE where the system has no descriptors.
StatusOr<BenchTime> RunHttpLoad(const BenchLoad& load, const BenchSink& sink);

}  // namespace polyad
