#pragma once

// What the engine tells the outside about itself: a snapshot of counters made by the engine thread
// after each step, and the observer that histograms are fed from.

#include <cstdint>
#include <string>
#include <vector>

#include "engine/request/token_event.h"

namespace polyad {

// One consistent snapshot of the counters (GetLoad, /metrics); made by the engine thread after each
// step, read without touching it.
struct EngineLoad {
  int64_t num_waiting = 0;
  int64_t num_running = 0;
  int64_t num_kv_blocks = 0;
  int64_t num_kv_blocks_used = 0;       // held by sequences
  int64_t num_kv_blocks_cached = 0;     // free but still holding a reusable prefix
  int64_t num_kv_blocks_in_memory = 0;  // evicted from the pool, kept beyond it
  int64_t num_kv_blocks_in_file = 0;
  int64_t num_kv_blocks_saved = 0;        // evicted and kept, since start-up
  int64_t num_kv_blocks_restored = 0;     // copied back into the pool
  int64_t num_kv_blocks_shared = 0;       // held by several sequences
  int64_t num_kv_blocks_soft_prompt = 0;  // of adapters' soft prompts, held or cached
  struct MemoryBytes {  // total = kv + prefix + adapters + free; all 0: K/V has its own
    int64_t total = 0;
    int64_t kv = 0;      // pages of K/V, but for what is cached there
    int64_t prefix = 0;  // cached blocks, held by nobody
    int64_t adapters = 0;
    int64_t free = 0;
  };
  MemoryBytes memory_bytes;
  int64_t num_steps = 0;
  int64_t num_preemptions = 0;
  int64_t num_requests_finished = 0;
  int64_t num_requests_cancelled = 0;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t soft_prompt_tokens = 0;             // computed or stored, padding too
  int64_t prefix_queries = 0;                 // prompt tokens looked up
  int64_t prefix_hits = 0;                    // prompt tokens found
  int64_t step_rows = 0;                      // rows of the last step
  std::vector<std::string> running_adapters;  // distinct names with a running sequence
  std::vector<std::string> waiting_adapters;
  bool draining = false;
  int64_t last_step_age_ms = 0;
};

// Where the engine reports what histograms are made of; called on the engine and delivery threads,
// must not block.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  struct RequestDone {
    std::string adapter;  // loaded adapter's name, or the base model's
    FinishReason reason = FinishReason::kStop;
    Usage usage;
    Timings timings;
    double time_to_first_token_ms = 0;
    double end_to_end_ms = 0;
  };
  virtual void OnStep(int64_t num_rows, int64_t num_sequences, double step_ms) = 0;
  virtual void OnTokenGap(double inter_token_ms) = 0;
  virtual void OnRequestDone(const RequestDone& done) = 0;
};

}  // namespace polyad
