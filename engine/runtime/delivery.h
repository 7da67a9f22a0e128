#pragma once

// The delivery thread: engine outputs to the clients' sinks. Adds the text (a detokeniser and a
// stop matcher per choice), ends a choice at a stop string (and tells the engine), echoes the
// prompt, and keeps the promise of token_event.h: one PromptEvent, then tokens, then exactly one
// FinishEvent per choice, whose usage counts the tokens that were sent. A sink that refuses an
// event has its request cancelled. Deliver may be called directly instead of Run, from one thread.

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/base/clock.h"
#include "engine/runtime/engine_load.h"
#include "engine/runtime/messages.h"
#include "engine/runtime/request_registry.h"
#include "engine/text/detokenizer.h"
#include "engine/text/stop_matcher.h"
#include "engine/text/tokenizer.h"

namespace polyad {

class Delivery {
 public:
  struct Parts {  // all outlive the delivery
    const Tokenizer& tokenizer;
    Clock& clock;
    Inbox& inbox;
    RequestRegistry& registry;
    EngineObserver* observer = nullptr;
  };
  explicit Delivery(Parts parts) : parts_(parts) {}

  void Run(OutputQueue& outputs);  // until the queue is closed and empty
  void Deliver(EngineOutput output);

  size_t num_streams() const { return streams_.size(); }

 private:
  struct Choice {
    StreamDetokenizer text;
    StopMatcher stops;
    int64_t num_tokens = 0;
    bool finished = false;
  };
  struct Stream {
    int64_t number = 0;
    std::shared_ptr<const Request> request;
    std::vector<Choice> choices;
    int64_t num_open =
        0;  // choices the engine has not finished: until then it may still send for them
    bool refused = false;  // by the sink: only finishes are sent from here on
    double first_token_ms = 0;
    EngineObserver::RequestDone done;
  };

  Stream& StreamOf(const EngineOutput& output);
  void Handle(Stream& stream, const EngineOutput& output, PromptEvent event);
  void Handle(Stream& stream, const EngineOutput& output, TokensEvent event);
  void Handle(Stream& stream, const EngineOutput& output, FinishEvent event);
  StopMatcher::Result TextOf(Stream& stream, Choice& choice, const EngineOutput& output,
                             const TokensEvent& event);
  FinishEvent StoppedBy(const Stream& stream, int stop_index, const EngineOutput& output,
                        int32_t choice) const;
  void Send(Stream& stream, TokenEvent event);
  void Close(Stream& stream, FinishEvent event);
  double MillisSinceArrival(const Stream& stream) const;

  const Parts parts_;
  std::unordered_map<int64_t, Stream> streams_;  // by request number
};

}  // namespace polyad
