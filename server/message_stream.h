#pragma once

// A stream of whole messages from the server's own threads to one client (load states, adapter
// lists): StreamQueue with nothing to merge and nobody to cancel. Thread-safe.

#include <utility>

#include "server/stream_queue.h"

namespace polyad {

template <typename Message>
class MessageStream final : public StreamSource {
 public:
  explicit MessageStream(size_t max_bytes) : queue_(max_bytes) {}

  bool closed() const { return queue_.closed(); }

  // False once the client left or reads too slowly.
  bool Send(Message message) {
    const size_t bytes = BytesOf(message);
    return queue_.Add(bytes, [&](auto& items) { items.push_back({std::move(message), bytes}); });
  }
  // Drops what the client has not begun to read: `message` says it all. False once the client left,
  // or where the message alone is over the budget.
  bool Replace(Message message) {
    const size_t bytes = BytesOf(message);
    return queue_.Replace(std::move(message), bytes);
  }
  void Close(Status status) { queue_.Close(std::move(status)); }

  void Start(MessageChannel& channel) override { queue_.Start(channel); }
  void OnWritten(bool ok) override { queue_.OnWritten(ok); }
  void OnCancelled() override { queue_.Abort(Cancelled("call: cancelled")); }

 private:
  // About what it holds in memory.
  static size_t BytesOf(const Message& message) { return message.ByteSizeLong() + 64; }

  StreamQueue<Message> queue_;
};

}  // namespace polyad
