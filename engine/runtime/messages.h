#pragma once

// Everything that crosses a thread in the engine. Into the engine thread: one bounded inbox of
// EngineMessage. Out of it: one queue of EngineOutput, read by delivery. A request is known inside
// by its number, which is never reused; clients' ids stay in the registry.

#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "engine/base/bounded_queue.h"
#include "engine/base/strong_id.h"
#include "engine/cache/prefix_key.h"
#include "engine/request/request.h"

namespace polyad {

struct Arrive {
  int64_t number = 0;
  std::shared_ptr<const Request> request;
  PrefixChain prompt_keys;  // root and full blocks of the prompt; empty: nothing is shared
  int64_t token_cost = 0;   // scheduler.h, kBaseTokenCost for the base model
};
struct CancelRequest {
  int64_t number = 0;
};
// Delivery found a stop string and has told the client; the finish that the engine answers with
// only tells delivery that nothing more will come.
struct StopMatched {
  int64_t number = 0;
  int32_t choice = 0;
};
// An adapter version was unloaded by force: end its requests, and any that still arrive.
struct RetireVersion {
  AdapterVersionId version;
};
// No lease on an adapter with a soft prompt is left: nobody will ask for its blocks again.
struct ForgetHead {
  std::vector<PrefixKey> keys;
};
// Adapters ask for pages of the memory they share with K/V: a step is to look, also an idle one.
struct ShareAgain {};
// End everything and let the engine thread return.
struct Shutdown {};

using EngineMessage = std::variant<Arrive, CancelRequest, StopMatched, RetireVersion, ForgetHead,
                                   ShareAgain, Shutdown>;
using Inbox = BoundedQueue<EngineMessage>;

struct EngineOutput {
  int64_t number = 0;
  std::shared_ptr<const Request> request;
  Timings timings;            // so far
  int64_t cached_tokens = 0;  // of the prompt
  TokenEvent event;
  bool ends_with_stop_token =
      false;  // the event's last id ended the choice; its text is not output

  bool is_finish() const { return std::holds_alternative<FinishEvent>(event); }
};
using OutputQueue = BoundedQueue<EngineOutput>;

}  // namespace polyad
