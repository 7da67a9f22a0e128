#pragma once

// A bounded many-producer queue with one consumer: the only thing threads share in the engine. A
// full queue refuses (the caller answers RESOURCE_EXHAUSTED); it never blocks a producer. Close
// wakes the consumer for good.

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <iterator>
#include <mutex>
#include <utility>
#include <vector>

namespace polyad {

template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // False when full or closed; `item` is moved from only on success.
  bool TryPush(T&& item) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (closed_ || items_.size() >= capacity_) return false;
      items_.push_back(std::move(item));
    }
    ready_.notify_one();
    return true;
  }

  // For messages that free something (a cancel, a release): they may pass the capacity, never the
  // closing.
  bool PushUrgent(T&& item) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (closed_) return false;
      items_.push_back(std::move(item));
    }
    ready_.notify_one();
    return true;
  }

  // Several at once, past the capacity: for a producer that has looked at size() and bounds what it
  // sends itself.
  bool PushAllUrgent(std::vector<T>&& items) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (closed_) return false;
      for (T& item : items) items_.push_back(std::move(item));
    }
    ready_.notify_one();
    return true;
  }

  // Takes everything queued, without waiting.
  std::vector<T> DrainNow() {
    std::lock_guard<std::mutex> lock(mutex_);
    return TakeLocked();
  }

  // Waits until something is queued, the queue closes, or the time is up; then takes everything.
  std::vector<T> DrainWait(std::chrono::milliseconds timeout) {
    std::unique_lock<std::mutex> lock(mutex_);
    ready_.wait_for(lock, timeout, [this] { return closed_ || !items_.empty(); });
    return TakeLocked();
  }

  void Close() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    ready_.notify_all();
  }

  bool closed() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return closed_;
  }

  size_t size() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return items_.size();
  }

 private:
  std::vector<T> TakeLocked() {
    std::vector<T> taken(std::make_move_iterator(items_.begin()),
                         std::make_move_iterator(items_.end()));
    items_.clear();
    return taken;
  }

  const size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<T> items_;
  bool closed_ = false;
};

}  // namespace polyad
