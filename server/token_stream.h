#pragma once

// A Generate call's events on their way out: the engine's ResponseSink on one side, a
// MessageChannel on the other. Never blocks the delivery thread. Tokens of one choice that wait for
// a slow client are merged into one Delta; past the byte budget the stream gives up with ABORTED
// and the request is cancelled. Thread-safe; shared by the engine and the call.

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "engine/request/token_event.h"
#include "polyad/v1/inference.pb.h"
#include "server/stream_queue.h"

namespace polyad {

class TokenStream final : public ResponseSink, public StreamSource {
 public:
  struct Options {
    std::string request_id;  // as PromptInfo shows it
    int32_t num_choices = 1;
    size_t max_buffer_bytes = 256 << 10;
    std::function<void()> cancel;  // tells the engine; called once at most, from any thread
  };

  explicit TokenStream(Options options);

  bool OnEvent(TokenEvent event) override;

  void Start(MessageChannel& channel) override { queue_.Start(channel); }
  void OnWritten(bool ok) override;
  void OnCancelled() override;
  // The request was refused before any event.
  void Refuse(const Status& status) { queue_.Close(status); }

 private:
  void NoteFinish(const FinishEvent& finish);
  void CancelOnce();

  const Options options_;
  StreamQueue<v1::GenerateResponse> queue_;
  std::atomic<bool> cancelled_{false};
  int32_t num_finished_ = 0;  // delivery thread only
  Status final_status_;       // delivery thread only
};

}  // namespace polyad
