#pragma once

// The KV blocks of one device: a fixed number, reference counted, with an index of the full ones by
// prefix key. A block is unused (nothing in it), held (by one or more sequences) or cached (held by
// none, its prefix still findable). Allocation takes unused blocks first, then evicts the cached
// block that was let go longest ago. Holds no memory of the K/V themselves. Engine thread only.

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/base/strong_id.h"
#include "engine/cache/prefix_key.h"

namespace polyad {

// A sequence's blocks in order of position: token p lies in blocks[p / kBlockTokens].
using BlockTable = std::vector<BlockId>;

class BlockPool {
 public:
  explicit BlockPool(int64_t num_blocks);

  int64_t num_blocks() const { return static_cast<int64_t>(slots_.size()); }
  int64_t num_cached() const { return num_cached_; }
  int64_t num_available() const { return static_cast<int64_t>(unused_.size()) + num_cached_; }
  int64_t num_held() const { return num_blocks() - num_available(); }

  // Appends `count` blocks, each held once, to `table`; the caller has checked num_available().
  void Allocate(int64_t count, BlockTable& table);
  void Hold(BlockId block);
  // Lets every block of `table` go and empties it. The last block goes first, so that of one prefix
  // the tail is evicted before the head.
  void ReleaseAll(BlockTable& table);

  // How many of keys[1..] name blocks in a row, and at most `limit`. Blocks that nobody holds count
  // as available until TakePrefix; `from_cache` says how many of the matched ones those are.
  struct Match {
    int64_t num_blocks = 0;
    int64_t from_cache = 0;
  };
  Match FindPrefix(std::span<const PrefixKey> keys, int64_t limit) const;
  // Holds the first `count` matched blocks and appends them to `table`.
  void TakePrefix(std::span<const PrefixKey> keys, int64_t count, BlockTable& table);

  // Makes a full, computed block findable. Where another block already carries the key (its content
  // is the same bits), `block` is given up for that one, so that equal prefixes end up shared.
  void Publish(const PrefixKey& key, BlockId& block);

  // Blocks of `table` that would become available were the table released.
  int64_t NumExclusive(std::span<const BlockId> table) const;

  // Aborts unless the reference counts equal what `tables` hold and unused + cached + held is
  // everything.
  void CheckInvariants(std::span<const BlockTable* const> tables) const;

 private:
  static constexpr int64_t kNone = -1;

  struct Slot {
    int32_t references = 0;
    bool indexed = false;
    PrefixKey key;          // where indexed
    int64_t older = kNone;  // neighbours in the list of cached blocks
    int64_t newer = kNone;
  };

  Slot& At(BlockId block) { return slots_[static_cast<size_t>(block.value())]; }
  const Slot& At(BlockId block) const { return slots_[static_cast<size_t>(block.value())]; }
  Slot& At(int64_t index) { return slots_[static_cast<size_t>(index)]; }
  void Release(BlockId block);
  void EnterCache(BlockId block);
  void LeaveCache(BlockId block);
  BlockId EvictOldest();

  std::vector<Slot> slots_;
  std::vector<BlockId> unused_;  // a stack
  std::unordered_map<PrefixKey, BlockId> index_;
  int64_t oldest_ = kNone;
  int64_t newest_ = kNone;
  int64_t num_cached_ = 0;
};

// Blocks that hold `num_tokens` tokens.
constexpr int64_t BlocksFor(int64_t num_tokens) {
  return (num_tokens + kBlockTokens - 1) / kBlockTokens;
}

}  // namespace polyad
