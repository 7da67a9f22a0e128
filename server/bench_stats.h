#pragma once

// What a load run measured: what became of every request, counted for all, by tenant and by model.
// Every time counts from the intended arrival, so that neither a client that is late nor a server
// that makes it wait is flattered (no coordinated omission). BenchStats may be added to by any
// thread; the rest are plain values.

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "server/bench_trace.h"
#include "server/latency_histogram.h"

namespace polyad {

using BenchTime = std::chrono::steady_clock::time_point;

// What became of one request. Microseconds after the intended arrival; -1: it never came to that.
struct BenchOutcome {
  enum class End { kCompleted, kRefused, kFailed, kCancelled };  // refused: overload or a quota

  End end = End::kFailed;
  std::string error;             // of refused and failed ones
  int64_t sent_us = 0;           // when the client came to it
  int64_t ttft_us = -1;          // the first token
  int64_t e2el_us = 0;           // the end
  int64_t tpot_us = -1;          // (last - first) / (tokens - 1)
  std::vector<int32_t> gaps_us;  // between two pieces with tokens
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
};

// Makes an outcome's times, piece by piece.
class BenchTimer {
 public:
  explicit BenchTimer(BenchTime intended) : intended_(intended) {}
  void Sent(BenchTime now) { outcome_.sent_us = Since(now); }
  void Tokens(int64_t count, BenchTime now);
  int64_t num_tokens() const { return num_tokens_; }
  BenchOutcome& outcome() { return outcome_; }
  BenchOutcome Finish(BenchTime now);

 private:
  int64_t Since(BenchTime now) const;

  BenchTime intended_;
  BenchTime first_{};
  BenchTime last_{};
  int64_t num_tokens_ = 0;
  BenchOutcome outcome_;
};

// Limits that a good answer keeps; 0: none.
struct BenchTargets {
  double ttft_ms = 0;
  double tpot_ms = 0;
  double e2el_ms = 0;

  bool any() const { return ttft_ms > 0 || tpot_ms > 0 || e2el_ms > 0; }
  bool Met(const BenchOutcome& outcome) const;  // never by one that did not complete
};

// Of completed requests where nothing else is said.
struct BenchGroup {
  int64_t completed = 0;
  int64_t refused = 0;
  int64_t failed = 0;
  int64_t cancelled = 0;  // as the trace asked
  int64_t good = 0;       // met the targets
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  int64_t good_tokens = 0;  // written, by good ones
  LatencyHistogram ttft, tpot, itl, e2el;

  void Add(const BenchOutcome& outcome, const BenchTargets& targets);
  // Good ones among all that were not cancelled; 1 of none.
  double Attainment() const;
};

struct BenchResult {
  int64_t started_unix_us = 0;  // at_us 0 of the trace, in microseconds since 1970
  double duration_s = 0;
  double request_rate = 0;  // offered; 0: all at once
  double client_cores = 0;  // processor seconds of this program per second
  std::string backend;      // "polyad-grpc", "polyad-http"
  BenchTargets targets;
  BenchGroup total;
  std::map<std::string, BenchGroup> by_tenant;
  std::map<std::string, BenchGroup> by_model;  // "" is the base model
  LatencyHistogram lateness;                   // of the client, over all requests
  std::string first_error;
};

class BenchStats {
 public:
  explicit BenchStats(const BenchTargets& targets) { result_.targets = targets; }
  void Add(const BenchRequest& request, const BenchOutcome& outcome);
  BenchResult Take();  // leaves nothing

 private:
  std::mutex mutex_;
  BenchResult result_;
};

}  // namespace polyad
