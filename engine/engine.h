#pragma once

// The only door to the engine. Owns the model, the cache, the adapters and the threads (one engine
// thread, one delivery thread); everything behind it is messages and immutable views. All methods
// are thread-safe and none waits for the engine thread, except where a deadline is an argument.
// Errors are Status: INVALID_ARGUMENT bad request, NOT_FOUND unknown adapter, RESOURCE_EXHAUSTED a
// full queue (try again later), UNAVAILABLE draining.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/adapters/adapter_store.h"
#include "engine/base/clock.h"
#include "engine/base/status.h"
#include "engine/request/request.h"
#include "engine/runtime/engine_load.h"
#include "engine/spec/model_spec.h"
#include "engine/spec/weight_bytes.h"
#include "engine/text/tokenizer.h"
#include "kernels/api/backend.h"

namespace polyad {

struct EngineOptions {
  std::string model_path;
  std::string model_name;  // empty: the directory's or file's base name
  ComputeMode compute_mode = ComputeMode::kAuto;
  int64_t kv_bytes = int64_t{512} << 20;  // K/V pool; rounded down to whole blocks
  // Not 0: K/V and adapters share so much in place of kv_bytes and adapters.max_bytes.
  int64_t memory_bytes = 0;
  KvFormat kv_format = KvFormat::kAuto;
  // For blocks evicted from the pool: memory first, then a file in the directory. 0: none.
  int64_t spill_memory_bytes = 0;
  int64_t spill_file_bytes = 0;
  std::string spill_directory;
  int64_t max_step_tokens = 512;  // token budget of one step (prefill chunks + decodes)
  int64_t max_running = 64;       // sequences in one step
  int64_t max_queued = 1024;      // requests waiting; one more is RESOURCE_EXHAUSTED
  int64_t max_context = 0;        // tokens of prompt + output; 0: what the model allows
  int64_t max_prompt_bytes = 4 << 20;
  int64_t max_pending_events = 65536;  // engine -> delivery queue
  bool prefix_cache = true;
  int loader_niceness = 0;  // of the thread that reads swapped-out adapters back (setpriority(2))
  AdapterStoreOptions adapters;
};

struct ModelInfo {
  std::string name;
  std::string architecture;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;  // values of an embedding
  int64_t max_context = 0;
  int64_t longest_context = 0;  // what an adapter's own rotary scaling may allow, at most
  int64_t num_parameters = 0;
  WeightBytes weight_bytes;
  int64_t kv_bytes = 0;
  int64_t memory_bytes = 0;        // shared by K/V and adapters; 0: each has its own
  std::string kv_format;           // "f32", "bf16", "int8" or "int4"
  int64_t kv_bytes_per_token = 0;  // of all layers
  BackendInfo backend;
  std::string compute_mode;
  double load_seconds = 0;
};

class Engine {
 public:
  // Loads the model and starts the threads. `observer` may be null; all three outlive the engine.
  static StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options,
                                                  std::unique_ptr<Backend> backend, Clock& clock,
                                                  EngineObserver* observer);
  virtual ~Engine() = default;  // stops at once: running requests end with CANCELLED

  // Validates, tokenises (on the calling thread) and queues. On success events go to `sink` until
  // every choice has finished; on failure `sink` is never called. The returned id is the spec's, or
  // one made for it.
  virtual StatusOr<std::string> Submit(RequestSpec spec, std::shared_ptr<ResponseSink> sink) = 0;
  // What Submit would say of it, whatever adapter it names: encodes the prompt, compiles the
  // constraint and queues nothing.
  virtual Status Check(const RequestSpec& spec) = 0;
  // Frees the request's blocks within one step; its sink gets FinishEvents with kCancelled. Unknown
  // ids are ignored.
  virtual void Cancel(std::string_view request_id) = 0;

  virtual StatusOr<std::vector<int32_t>> Tokenize(std::string_view text,
                                                  bool add_special) const = 0;
  virtual StatusOr<std::string> Detokenize(const std::vector<int32_t>& ids,
                                           bool skip_special) const = 0;

  virtual AdapterStore& adapters() = 0;
  virtual const ModelInfo& model_info() const = 0;
  virtual EngineLoad load() const = 0;
  // Refuses new requests from now on; returns true once nothing is queued or running, false after
  // `wait_ms`.
  virtual bool Drain(int64_t wait_ms) = 0;
};

}  // namespace polyad
