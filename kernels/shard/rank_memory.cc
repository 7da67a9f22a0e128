#include "kernels/shard/rank_memory.h"

#include <mutex>
#include <utility>

namespace polyad {

std::shared_ptr<void> RankMemory::Add(Copies copies, int64_t bytes) {
  auto* begin = static_cast<char*>(copies[0].get());
  {
    const std::unique_lock lock(mutex_);
    memory_[begin] = {std::move(copies), bytes};
  }
  return {begin, [this](char* own) { Remove(own); }};
}

void RankMemory::Remove(const char* begin) {
  Copies copies;  // freed without the lock
  {
    const std::unique_lock lock(mutex_);
    const auto found = memory_.find(begin);
    copies = std::move(found->second.copies);
    memory_.erase(found);
  }
}

RankMemory::Place RankMemory::Find(const void* address) const {
  Place place;
  place.address_ = const_cast<void*>(address);
  const auto* at = static_cast<const char*>(address);
  const std::shared_lock lock(mutex_);
  auto found = memory_.upper_bound(at);
  if (found == memory_.begin()) return place;
  --found;
  const int64_t offset = at - found->first;
  if (offset >= found->second.bytes) return place;
  place.copies_ = &found->second.copies;
  place.offset_ = offset;
  return place;
}

}  // namespace polyad
