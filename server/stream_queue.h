#pragma once

// The messages of one streaming call on their way to a client who may be slow. Producers edit the
// pending list under one mutex and never wait; one write is under way at a time; what piles up
// meanwhile can be merged by the next edit. Over its byte budget it refuses, and the producer gives
// the stream up. Knows no gRPC: a MessageChannel does the writing and reports back. Thread-safe;
// the channel is called without the mutex held, so it may call back at once.

#include <cstddef>
#include <deque>
#include <mutex>
#include <utility>

#include "engine/base/status.h"
#include "google/protobuf/message_lite.h"

namespace polyad {

// The transport of one call. StartWrite is followed by exactly one StreamSource::OnWritten;
// `message` stays valid until then. Finish ends the call and is the last thing ever called.
class MessageChannel {
 public:
  virtual ~MessageChannel() = default;
  virtual void StartWrite(const google::protobuf::MessageLite& message) = 0;
  virtual void Finish(const Status& status) = 0;
};

// What the transport tells the stream.
class StreamSource {
 public:
  virtual ~StreamSource() = default;
  virtual void Start(MessageChannel& channel) = 0;
  virtual void OnWritten(bool ok) = 0;
  virtual void OnCancelled() = 0;  // the client left or its deadline passed
};

template <typename Message>
class StreamQueue {
 public:
  struct Item {
    Message message;
    size_t bytes = 0;
  };
  using Items = std::deque<Item>;

  explicit StreamQueue(size_t max_bytes) : max_bytes_(max_bytes) {}

  void Start(MessageChannel& channel) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      channel_ = &channel;
    }
    Pump();
  }

  // `edit(Items&)` adds `bytes` worth of messages or merges them into the last item. False, without
  // calling it, where the stream has ended or the budget would be passed.
  template <typename Edit>
  bool Add(size_t bytes, Edit edit) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (closed_ || pending_bytes_ + bytes > max_bytes_) return false;
      edit(items_);
      pending_bytes_ += bytes;
    }
    Pump();
    return true;
  }

  // Puts `message` in place of all that is pending. False where the stream has ended or the message
  // alone would pass the budget.
  bool Replace(Message message, size_t bytes) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (closed_ || bytes > max_bytes_) return false;
      items_.clear();
      items_.push_back({std::move(message), bytes});
      pending_bytes_ = bytes;
    }
    Pump();
    return true;
  }

  // Ends the call with `status` once everything pending is written; the first Close or Abort wins.
  void Close(Status status) { End(std::move(status), false); }
  // Ends it after the write under way, dropping what is pending.
  void Abort(Status status) { End(std::move(status), true); }

  void OnWritten(bool ok) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      writing_ = false;
      if (!ok)
        EndLocked(Status(absl::StatusCode::kCancelled, std::string("the client left")), true);
    }
    Pump();
  }

  bool closed() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return closed_;
  }

 private:
  void End(Status status, bool drop) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      EndLocked(std::move(status), drop);
    }
    Pump();
  }

  void EndLocked(Status status, bool drop) {
    if (!closed_) status_ = std::move(status);
    closed_ = true;
    if (drop) items_.clear();
  }

  // Starts the next write, or finishes.
  void Pump() {
    std::unique_lock<std::mutex> lock(mutex_);
    if (channel_ == nullptr || writing_ || finished_) return;
    MessageChannel& channel = *channel_;
    if (!items_.empty()) {
      writing_ = true;
      current_ = std::move(items_.front().message);
      pending_bytes_ -= items_.front().bytes;
      items_.pop_front();
      lock.unlock();
      channel.StartWrite(current_);
    } else if (closed_) {
      finished_ = true;
      const Status status = status_;
      lock.unlock();
      channel.Finish(status);
    }
  }

  const size_t max_bytes_;
  mutable std::mutex mutex_;
  MessageChannel* channel_ = nullptr;
  Items items_;
  size_t pending_bytes_ = 0;
  Message current_;  // the write under way
  bool writing_ = false;
  bool closed_ = false;
  bool finished_ = false;
  Status status_;
};

}  // namespace polyad
