#include "engine/runtime/request_registry.h"

#include <chrono>

namespace polyad {

StatusOr<int64_t> RequestRegistry::Begin(std::string& request_id) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (draining_) return Unavailable("the server is draining and takes no new requests");
  if (num_queued_ >= max_queued_) {
    return ResourceExhausted("request queue: expected fewer than %d waiting, got %d", max_queued_,
                             num_queued_);
  }
  if (static_cast<int64_t>(entries_.size()) >= max_alive_) {
    return ResourceExhausted("requests alive: expected fewer than %d, got %d", max_alive_,
                             entries_.size());
  }
  const int64_t number = next_number_;
  std::string id = request_id.empty() ? absl::StrFormat("req-%d", number) : request_id;
  if (!numbers_.try_emplace(id, number).second) {
    return AlreadyExists("request_id: expected one not in use, got %s", id);
  }
  ++next_number_;
  ++num_queued_;
  entries_[number] = Entry{id, true};
  request_id = std::move(id);
  return number;
}

void RequestRegistry::LeaveQueue(int64_t number) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto entry = entries_.find(number);
  if (entry == entries_.end() || !entry->second.queued) return;
  entry->second.queued = false;
  --num_queued_;
}

void RequestRegistry::End(int64_t number) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto entry = entries_.find(number);
    if (entry == entries_.end()) return;
    if (entry->second.queued) --num_queued_;
    numbers_.erase(entry->second.request_id);
    entries_.erase(entry);
  }
  ended_.notify_all();
}

std::optional<int64_t> RequestRegistry::Find(std::string_view request_id) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = numbers_.find(request_id);
  if (found == numbers_.end()) return std::nullopt;
  return found->second;
}

int64_t RequestRegistry::num_alive() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int64_t>(entries_.size());
}

int64_t RequestRegistry::num_queued() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return num_queued_;
}

bool RequestRegistry::draining() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return draining_;
}

bool RequestRegistry::Drain(int64_t wait_ms) {
  std::unique_lock<std::mutex> lock(mutex_);
  draining_ = true;
  return ended_.wait_for(lock, std::chrono::milliseconds(wait_ms),
                         [this] { return entries_.empty(); });
}

}  // namespace polyad
