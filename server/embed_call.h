#pragma once

// One call for embeddings: its inputs as requests of their own in the engine, at most kEmbedWindow
// of them at a time, and their results in order. The tenant's quotas see one request. One input's
// failure ends the call, and so does an adapter that changes within it (ABORTED). Inputs are
// tokenised and answers are made on `Serving::embedders`, never on the delivery thread. Shared by
// the engine's sinks and the front; Cancel from any thread.

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "server/embed_codec.h"
#include "server/serving.h"

namespace polyad {

inline constexpr int64_t kEmbedWindow = 16;

class EmbedCall : public std::enable_shared_from_this<EmbedCall> {
 public:
  // Called once, from any thread.
  using Done = std::function<void(StatusOr<EmbedResult> result)>;

  // `specs` are DecodeEmbedRequest's. The engine, the gate and the embedders outlive the call.
  EmbedCall(Serving& serving, std::vector<RequestSpec> specs);

  // `serving` is the constructor's.
  void Run(Serving& serving, Done done);
  // Frees what its inputs hold within a step; the call ends with CANCELLED.
  void Cancel();

 private:
  class Sink;

  void SubmitMore();
  bool TakeNext(size_t& index, std::string& id);
  bool SubmitOne(size_t index, const std::string& id);
  void OnPrompt(size_t index, PromptEvent event);
  void OnFinish(const std::string& id, const FinishEvent& event);
  void FailLocked(const Status& status);
  void EndIfOver();

  // What its inputs' ends use, which may come when the fronts are gone.
  Engine& engine_;
  TenantGate& gate_;
  WorkerPool& workers_;
  std::vector<RequestSpec> specs_;  // one is given away when its input is submitted
  const std::string tenant_;
  const std::string client_id_;
  Metrics& metrics_;
  TraceExporter* const traces_;

  std::mutex mutex_;  // guards all below
  Done done_;
  std::unique_ptr<TenantGate::Pass> pass_;
  std::vector<size_t> waiting_;    // inputs yet to be submitted, the next one last
  std::set<std::string> running_;  // ids in the engine
  bool more_is_queued_ = false;    // SubmitMore, on the workers
  bool has_adapter_ = false;
  Status failure_;
  EmbedResult result_;
  EndedRequest ended_;
};

}  // namespace polyad
