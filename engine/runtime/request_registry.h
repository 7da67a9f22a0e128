#pragma once

// Which requests are alive, for the threads outside the engine's: gives out numbers, refuses one
// too many (the queue limit), refuses an id that is in use, finds a number to cancel, and lets
// Drain wait. Thread-safe.

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "engine/base/status.h"

namespace polyad {

class RequestRegistry {
 public:
  // max_queued: accepted and not yet running. max_alive: accepted and not yet wholly delivered.
  RequestRegistry(int64_t max_queued, int64_t max_alive)
      : max_queued_(max_queued), max_alive_(max_alive) {}

  // RESOURCE_EXHAUSTED when full, ALREADY_EXISTS for an id in use, UNAVAILABLE while draining. An
  // empty id is replaced by one made for the request.
  StatusOr<int64_t> Begin(std::string& request_id);
  void LeaveQueue(int64_t number);  // once admitted; End implies it
  void End(int64_t number);
  std::optional<int64_t> Find(std::string_view request_id) const;

  int64_t num_alive() const;
  int64_t num_queued() const;
  bool draining() const;
  // Refuses new requests; true once none is alive, false after `wait_ms`.
  bool Drain(int64_t wait_ms);

 private:
  struct Entry {
    std::string request_id;
    bool queued = true;
  };

  const int64_t max_queued_;
  const int64_t max_alive_;
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  std::map<std::string, int64_t, std::less<>> numbers_;
  std::unordered_map<int64_t, Entry> entries_;
  int64_t num_queued_ = 0;
  int64_t next_number_ = 1;
  bool draining_ = false;
};

}  // namespace polyad
