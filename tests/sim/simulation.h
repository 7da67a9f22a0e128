#pragma once

// One seed, one history: random requests, cancels, deadlines, adapter loads, replacements and
// forced unloads, device faults, tiny pools and queues, slow delivery and refusing clients, against
// the real intake, loop, scheduler, pool, commit and delivery, stepped by hand in one thread with a
// fake clock. After every step the invariants are checked (every block is unused, held, or cached,
// references are owners, spilled blocks and tenants' requests are counted, soft prompts belong to
// versions that may be asked for), and every answer is compared with the oracle's. The same options
// give the same history, event for event.

#include <cstdint>
#include <string>

namespace polyad {

struct SimulationOptions {
  uint64_t seed = 0;
  // Requests, cancels, loads, unloads and ends of versions that are to happen; 0: those of a
  // minute. A long history is a busy one: a short queue, many cancels, and blocks always spill.
  int64_t num_operations = 0;
  // K/V shares its memory with adapters that come, wait for room, and go as they like.
  bool shares_memory = false;
};

struct SimulationResult {
  std::string failure;    // empty: every promise held
  uint64_t log_hash = 0;  // of every event, in order
  int64_t num_operations = 0;
  int64_t num_steps = 0;  // that ran something
  int64_t num_requests = 0;
  int64_t num_reloads = 0;   // under a name that was loaded
  int64_t num_unloads = 0;   // forced
  int64_t num_finished = 0;  // with an answer compared whole
  int64_t num_preemptions = 0;
  int64_t num_faults = 0;
  int64_t num_overruns = 0;  // requests ended for want of room in the output queue
  int64_t num_expired = 0;
  int64_t num_cancelled = 0;
  int64_t prefix_hits = 0;  // tokens
  int64_t num_stop_strings = 0;
  int64_t num_shared_prompts = 0;  // blocks of a soft prompt seen held by two tenants
  int64_t num_forgotten_heads = 0;
  int64_t num_given_back = 0;   // places behind a window, seen after a step
  int64_t num_saved = 0;        // blocks evicted and kept
  int64_t num_restored = 0;     // blocks copied back
  int64_t num_embeddings = 0;   // compared
  int64_t num_pages_grown = 0;  // of K/V, in shared memory, seen between two steps
  int64_t num_pages_given = 0;
  int64_t num_adapters_placed = 0;  // in shared memory, after K/V had been asked
  int64_t num_condemned = 0;        // pages, seen after a step
  int64_t num_invocations = 0;      // requests whose adapter begins within the prompt
};

SimulationResult Simulate(const SimulationOptions& options);

}  // namespace polyad
