#pragma once

// The KV blocks of one device: a fixed number, reference counted, with an index of the full ones by
// prefix key. A block is unused (nothing in it), held (by one or more sequences) or cached (held by
// none, its prefix still findable). Allocation takes unused blocks first, then evicts cached ones:
// of the owner with the most of them, the one that was let go longest ago, so that nobody's prompts
// drive out everybody else's; an adapter's soft prompt goes last of all. What was evicted can be
// asked for before it is overwritten. Holds no memory of the K/V themselves. Engine thread only.
//
// Memory may come and go by the page (block_pages.h): then blocks whose pages are not there are
// absent, neither unused nor available, and the lowest unused block is taken first, so that the
// last pages empty.

#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/base/strong_id.h"
#include "engine/cache/block_pages.h"
#include "engine/cache/prefix_key.h"

namespace polyad {

// A sequence's blocks in order of position: token p lies in blocks[p / kBlockTokens]. Where a
// sequence needs its first tokens no longer, their places hold invalid ids.
using BlockTable = std::vector<BlockId>;

class BlockPool {
 public:
  explicit BlockPool(int64_t num_blocks, const BlockPages::Layout& layout = {});

  int64_t num_blocks() const { return static_cast<int64_t>(slots_.size()); }  // absent ones too
  int64_t num_cached() const { return num_cached_; }
  int64_t num_unused() const { return num_unused_; }
  int64_t num_available() const { return num_unused_ + num_cached_; }
  int64_t num_held() const { return num_held_; }
  int64_t num_shared() const { return num_shared_; }            // held more than once
  int64_t num_soft_prompt() const { return num_soft_prompt_; }  // findable, held or cached

  // Appends `count` blocks, each held once, to `table`; the caller has checked num_available().
  void Allocate(int64_t count, BlockTable& table);
  void Hold(BlockId block);
  // Lets every block of `table` go and empties it. The last block goes first, so that of one prefix
  // the tail is evicted before the head.
  void ReleaseAll(BlockTable& table);

  // Lets the blocks at places [begin, end) of `table` go and leaves the places, invalid.
  void ReleaseRange(int64_t begin, int64_t end, BlockTable& table);

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
  void Publish(const PrefixKey& key, BlockOwner owner, BlockId& block);
  // Makes these unfindable, whoever holds them: nobody will ask again.
  void Forget(std::span<const PrefixKey> keys);

  // Blocks whose content was still findable when Allocate took them, since the last call.
  struct Evicted {
    PrefixKey key;
    BlockId block;
  };
  std::vector<Evicted> TakeEvicted() { return std::exchange(evicted_, {}); }

  // --- memory that comes and goes ---
  const BlockPages& pages() const { return pages_; }
  // When what is let go from now on was last used.
  void SetNow(int64_t now_us) { now_us_ = now_us; }
  // Brings the pages of the lowest absent blocks until `num_unused` are unused, or until `take`,
  // which is asked for so many pages, refuses.
  void Grow(int64_t num_unused, const std::function<bool(int64_t pages)>& take);
  // Gives up to `count` pages up, the coldest that nothing is held on; what was cached there is
  // evicted. The pages.
  std::vector<int64_t> Shrink(int64_t count);
  // Has the last `count` pages empty as their holders let go; 0: none.
  void Condemn(int64_t count);

  // Blocks of `table` that would become available were the table released.
  int64_t NumExclusive(std::span<const BlockId> table) const;

  // Aborts unless the reference counts equal what `tables` hold, every block is either unused,
  // cached or held, and every count is what it counts.
  void CheckInvariants(std::span<const BlockTable* const> tables) const;

 private:
  static constexpr int64_t kNone = -1;

  struct Slot {
    int32_t references = 0;
    bool indexed = false;
    bool usable = true;     // its pages are there and may be used
    bool listed = false;    // in unused_
    PrefixKey key;          // where indexed
    BlockOwner owner;       // where indexed
    int64_t older = kNone;  // neighbours in its owner's list of cached blocks
    int64_t newer = kNone;
  };
  struct CachedList {
    int64_t oldest = kNone;
    int64_t newest = kNone;
    int64_t count = 0;
  };

  Slot& At(BlockId block) { return slots_[static_cast<size_t>(block.value())]; }
  const Slot& At(BlockId block) const { return slots_[static_cast<size_t>(block.value())]; }
  Slot& At(int64_t index) { return slots_[static_cast<size_t>(index)]; }
  void Release(BlockId block);
  bool IsUnused(const Slot& slot) const {
    return slot.references == 0 && !slot.indexed && slot.usable;
  }
  void AddUnused(BlockId block);
  BlockId TakeUnused();
  void Evict(BlockId block);
  void UpdateUsable(int64_t page);
  void EnterCache(BlockId block);
  void LeaveCache(BlockId block);
  void SetCount(BlockOwner owner, CachedList& list, int64_t count);
  BlockId EvictOne();
  void Unindex(Slot& slot);
  void CheckUnused() const;
  void CheckIndex() const;
  void CheckCachedLists() const;

  std::vector<Slot> slots_;
  // A heap, the lowest first; a block that became absent stays until its turn comes.
  std::vector<int64_t> unused_;
  BlockPages pages_;
  std::unordered_map<PrefixKey, BlockId> index_;
  std::unordered_map<BlockOwner, CachedList> cached_;  // of owners that have cached blocks
  // Those but soft prompts, by how many they have.
  std::set<std::pair<int64_t, BlockOwner>> largest_;
  std::vector<Evicted> evicted_;
  int64_t num_unused_ = 0;
  int64_t num_held_ = 0;
  int64_t num_cached_ = 0;
  int64_t now_us_ = 0;
  int64_t num_shared_ = 0;
  int64_t num_soft_prompt_ = 0;
};

// Blocks that hold `num_tokens` tokens.
constexpr int64_t BlocksFor(int64_t num_tokens) {
  return (num_tokens + kBlockTokens - 1) / kBlockTokens;
}

}  // namespace polyad
