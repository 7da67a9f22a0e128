#pragma once

// The pieces an engine is put together from. Engine::Create makes them from a model on disk; tests
// bring their own (a fake StepRunner, a small tokenizer). The engine owns them all; `backend` goes
// last.

#include <functional>
#include <memory>
#include <vector>

#include "engine/adapters/adapter_store.h"
#include "engine/base/memory_ledger.h"
#include "engine/cache/block_pages.h"
#include "engine/cache/spill_store.h"
#include "engine/engine.h"
#include "engine/model/step_runner.h"
#include "engine/text/tokenizer.h"
#include "kernels/api/backend.h"

namespace polyad {

struct EngineParts {
  std::unique_ptr<Backend> backend;      // may be null
  std::shared_ptr<MemoryLedger> memory;  // of K/V and adapters together; null: each has its own
  std::unique_ptr<StepRunner> runner;
  std::unique_ptr<SpillStore> spill;  // may be null
  std::unique_ptr<AdapterStore> adapters;
  std::unique_ptr<const Tokenizer> tokenizer;
  // A chat to token ids; empty where the model has no chat template.
  std::function<StatusOr<std::vector<int32_t>>(const ChatPrompt&)> encode_chat;
  ModelInfo info;
  int64_t num_kv_blocks = 0;
  int64_t max_request_blocks = 0;     // what a request may take; 0: all
  BlockPages::Layout kv_layout;       // where there is `memory`
  int64_t sliding_window = 0;         // Model::sliding_window
  std::vector<int64_t> rope_reaches;  // RopeTables::reaches; empty: one
  std::vector<int32_t> eos_token_ids;
};

// `options` supplies the limits of the loop; starts the threads. `clock` and `observer` (may be
// null) outlive the engine.
StatusOr<std::unique_ptr<Engine>> MakeEngine(const EngineOptions& options, EngineParts parts,
                                             Clock& clock, EngineObserver* observer);

}  // namespace polyad
