#pragma once

// Where the content of evicted K/V blocks goes: memory beyond the pool, then a bounded file, each
// letting go of what was used longest ago. A block is found again by its prefix key, so what comes
// back is what was computed, bit for bit, whoever evicted it. Copies stay after they were read:
// their block may be evicted again at no cost. Knows bytes, not what they mean. Engine thread only.

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/base/status.h"
#include "engine/cache/prefix_key.h"
#include "engine/cache/spill_file.h"

namespace polyad {

class SpillStore {
 public:
  struct Options {
    int64_t block_bytes = 0;
    int64_t num_memory_blocks = 0;  // at least 1
    int64_t num_file_blocks = 0;    // 0: no file
    std::string directory;          // of the file
  };
  // RESOURCE_EXHAUSTED without the memory, UNAVAILABLE without the file.
  static StatusOr<std::unique_ptr<SpillStore>> Create(const Options& options);

  int64_t block_bytes() const { return options_.block_bytes; }
  int64_t num_in_memory() const { return static_cast<int64_t>(memory_entries_.size()); }
  int64_t num_in_file() const { return static_cast<int64_t>(file_entries_.size()); }
  int64_t num_kept() const;  // between Keep and Read

  // How many of keys [first, end) in a row it holds.
  int64_t FindPrefix(std::span<const PrefixKey> keys, int64_t first, int64_t end) const;
  // Where to put a block's content, block_bytes; empty where it is held already, or where all room
  // is kept for what a step will read.
  std::span<char> Reserve(const PrefixKey& key);
  // Keeps a held block from being let go until it is read.
  void Keep(const PrefixKey& key);
  // Copies a held block's content to `to`. UNAVAILABLE where the file fails; the block is then
  // gone.
  Status Read(const PrefixKey& key, std::span<char> to);
  void Forget(std::span<const PrefixKey> keys);

  // Aborts unless every slot of memory and file is free or holds one block that its key finds.
  void CheckInvariants() const;

 private:
  struct Entry {
    PrefixKey key;
    int64_t slot = 0;
    bool in_file = false;
    bool kept = false;
  };
  using Entries = std::list<Entry>;  // used longest ago first

  explicit SpillStore(const Options& options) : options_(options) {}
  char* Memory(int64_t slot) const { return memory_.get() + slot * options_.block_bytes; }
  Entries& ListOf(const Entry& entry) { return entry.in_file ? file_entries_ : memory_entries_; }
  Entries::iterator OldestFree(Entries& entries);
  bool MakeRoomInMemory();
  void MoveToFile(const Entry& entry);
  void Erase(Entries::iterator entry);
  void CheckSlots(const Entries& entries, const std::vector<int64_t>& free, int64_t count) const;

  const Options options_;
  std::unique_ptr<char[]> memory_;
  std::unique_ptr<SpillFile> file_;  // null: none, or it failed
  std::vector<int64_t> free_memory_;
  std::vector<int64_t> free_file_;
  Entries memory_entries_;
  Entries file_entries_;
  std::unordered_map<PrefixKey, Entries::iterator> index_;
};

}  // namespace polyad
