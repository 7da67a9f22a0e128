#include "engine/cache/spill_store.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/log.h"

namespace polyad {
namespace {

void Fill(int64_t count, std::vector<int64_t>& slots) {  // the lowest is taken first
  slots.reserve(static_cast<size_t>(count));
  for (int64_t i = count - 1; i >= 0; --i) slots.push_back(i);
}

}  // namespace

StatusOr<std::unique_ptr<SpillStore>> SpillStore::Create(const Options& options) {
  POLYAD_CHECK(
      options.block_bytes > 0 && options.num_memory_blocks > 0 && options.num_file_blocks >= 0 &&
          options.num_memory_blocks <= std::numeric_limits<int64_t>::max() / options.block_bytes,
      "a spill store's sizes");
  std::unique_ptr<SpillStore> store(new SpillStore(options));
  const int64_t bytes = options.block_bytes * options.num_memory_blocks;
  store->memory_.reset(new (std::nothrow) char[static_cast<size_t>(bytes)]);
  if (store->memory_ == nullptr) {
    return ResourceExhausted("K/V spill memory: the system refused %d bytes", bytes);
  }
  Fill(options.num_memory_blocks, store->free_memory_);
  if (options.num_file_blocks > 0) {
    POLYAD_ASSIGN_OR_RETURN(store->file_,
                            SpillFile::Create(options.directory, options.block_bytes));
    Fill(options.num_file_blocks, store->free_file_);
  }
  return store;
}

int64_t SpillStore::FindPrefix(std::span<const PrefixKey> keys, int64_t first, int64_t end) const {
  int64_t count = 0;
  for (int64_t i = first; i < std::min(end, static_cast<int64_t>(keys.size())); ++i, ++count) {
    if (index_.count(keys[static_cast<size_t>(i)]) == 0) break;
  }
  return count;
}

std::span<char> SpillStore::Reserve(const PrefixKey& key) {
  if (const auto held = index_.find(key); held != index_.end()) {
    Entries& list = ListOf(*held->second);
    list.splice(list.end(), list, held->second);
    return {};
  }
  if (free_memory_.empty() && !MakeRoomInMemory()) return {};
  const int64_t slot = free_memory_.back();
  free_memory_.pop_back();
  memory_entries_.push_back({key, slot});
  index_.emplace(key, std::prev(memory_entries_.end()));
  return {Memory(slot), static_cast<size_t>(options_.block_bytes)};
}

void SpillStore::Keep(const PrefixKey& key) {
  const auto held = index_.find(key);
  POLYAD_CHECK(held != index_.end(), "the block was found a moment ago");
  held->second->kept = true;
}

Status SpillStore::Read(const PrefixKey& key, std::span<char> to) {
  POLYAD_CHECK(static_cast<int64_t>(to.size()) == options_.block_bytes, "blocks are read whole");
  const auto held = index_.find(key);
  if (held == index_.end()) return Unavailable("K/V spill: a block could not be read before");
  const Entries::iterator entry = held->second;
  entry->kept = false;
  if (!entry->in_file) {
    std::memcpy(to.data(), Memory(entry->slot), to.size());
  } else if (Status read = file_->Read(entry->slot, to); !read.ok()) {
    Erase(entry);
    return read;
  }
  Entries& list = ListOf(*entry);
  list.splice(list.end(), list, entry);
  return absl::OkStatus();
}

void SpillStore::Forget(std::span<const PrefixKey> keys) {
  for (const PrefixKey& key : keys) {
    if (const auto held = index_.find(key); held != index_.end()) Erase(held->second);
  }
}

SpillStore::Entries::iterator SpillStore::OldestFree(Entries& entries) {
  return std::find_if(entries.begin(), entries.end(),
                      [](const Entry& entry) { return !entry.kept; });
}

bool SpillStore::MakeRoomInMemory() {
  const auto oldest = OldestFree(memory_entries_);
  if (oldest == memory_entries_.end()) return false;
  const Entry entry = *oldest;
  Erase(oldest);
  if (file_ != nullptr) MoveToFile(entry);
  return true;
}

// Its memory is free already and still unchanged.
void SpillStore::MoveToFile(const Entry& entry) {
  if (free_file_.empty()) {
    const auto oldest = OldestFree(file_entries_);
    if (oldest == file_entries_.end()) return;
    Erase(oldest);
  }
  const int64_t slot = free_file_.back();
  const Status written =
      file_->Write(slot, {Memory(entry.slot), static_cast<size_t>(options_.block_bytes)});
  if (!written.ok()) {
    Log(LogLevel::kWarning, "kv_spill_failed", {{"status", written.ToString()}});
    return;
  }
  free_file_.pop_back();
  file_entries_.push_back({entry.key, slot, /*in_file=*/true});
  index_.emplace(entry.key, std::prev(file_entries_.end()));
}

void SpillStore::Erase(Entries::iterator entry) {
  (entry->in_file ? free_file_ : free_memory_).push_back(entry->slot);
  index_.erase(entry->key);
  ListOf(*entry).erase(entry);
}

int64_t SpillStore::num_kept() const {
  const auto is_kept = [](const Entry& entry) { return entry.kept; };
  return std::count_if(memory_entries_.begin(), memory_entries_.end(), is_kept) +
         std::count_if(file_entries_.begin(), file_entries_.end(), is_kept);
}

void SpillStore::CheckInvariants() const {
  POLYAD_CHECK(index_.size() == memory_entries_.size() + file_entries_.size(),
               "every spilled block is found by its key");
  CheckSlots(memory_entries_, free_memory_, options_.num_memory_blocks);
  CheckSlots(file_entries_, free_file_, options_.num_file_blocks);
}

void SpillStore::CheckSlots(const Entries& entries, const std::vector<int64_t>& free,
                            int64_t count) const {
  std::vector<bool> seen(static_cast<size_t>(count), false);
  const auto see = [&](int64_t slot) {
    POLYAD_CHECK(slot >= 0 && slot < count && !seen[static_cast<size_t>(slot)],
                 "a slot of spilled blocks is free or holds one");
    seen[static_cast<size_t>(slot)] = true;
  };
  for (const int64_t slot : free) see(slot);
  for (const Entry& entry : entries) {
    see(entry.slot);
    const auto found = index_.find(entry.key);
    POLYAD_CHECK(found != index_.end() && &*found->second == &entry,
                 "a spilled block is found by its key");
  }
  POLYAD_CHECK(static_cast<int64_t>(free.size() + entries.size()) == count,
               "free and spilled is all");
}

}  // namespace polyad
