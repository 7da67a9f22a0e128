#pragma once

// The engine's two threads and what joins them: inbox, loop, output queue, delivery, registry.
// Construction starts the threads; destruction cancels what is left, delivers its events and joins.
// Post, Cancel and load are thread-safe.

#include <cstdint>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "engine/base/status.h"
#include "engine/runtime/delivery.h"
#include "engine/runtime/engine_loop.h"
#include "engine/runtime/messages.h"
#include "engine/runtime/request_registry.h"

namespace polyad {

class EngineCore {
 public:
  struct Parts {  // all outlive the core
    StepRunner& runner;
    const Tokenizer& tokenizer;
    Clock& clock;
    EngineObserver* observer = nullptr;
    SpillStore* spill = nullptr;     // null: none
    MemoryLedger* memory = nullptr;  // null: K/V has memory of its own
  };
  EngineCore(const EngineLoop::Options& options, int64_t max_queued, Parts parts);
  ~EngineCore();
  EngineCore(const EngineCore&) = delete;
  EngineCore& operator=(const EngineCore&) = delete;

  // The request's number came from registry().Begin. On failure the number is ended.
  Status Post(Arrive arrive);
  void Cancel(std::string_view request_id);
  void Retire(AdapterVersionId version);
  void Forget(std::vector<PrefixKey> head);
  void ShareMemory();  // K/V is asked for pages

  RequestRegistry& registry() { return registry_; }
  EngineLoad load() const { return loop_.load(); }

 private:
  RequestRegistry registry_;
  Inbox inbox_;
  OutputQueue outputs_;
  EngineLoop loop_;
  Delivery delivery_;
  std::thread loop_thread_;
  std::thread delivery_thread_;
};

}  // namespace polyad
