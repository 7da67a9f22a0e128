#include "engine/cache/block_pool.h"

#include <algorithm>

#include "engine/base/check.h"

namespace polyad {

BlockPool::BlockPool(int64_t num_blocks) : slots_(static_cast<size_t>(num_blocks)) {
  POLYAD_CHECK(num_blocks > 0, "a pool has blocks");
  unused_.reserve(slots_.size());
  for (int64_t i = num_blocks - 1; i >= 0; --i) unused_.push_back(BlockId(i));
}

void BlockPool::Allocate(int64_t count, BlockTable& table) {
  POLYAD_CHECK(count <= num_available(), "the scheduler plans within the pool");
  for (int64_t i = 0; i < count; ++i) {
    BlockId block;
    if (unused_.empty()) {
      block = EvictOldest();
    } else {
      block = unused_.back();
      unused_.pop_back();
    }
    At(block).references = 1;
    table.push_back(block);
  }
}

void BlockPool::Hold(BlockId block) {
  Slot& slot = At(block);
  if (slot.references == 0) {
    POLYAD_CHECK(slot.indexed, "an unused block cannot be shared");
    LeaveCache(block);
  }
  ++slot.references;
}

void BlockPool::ReleaseAll(BlockTable& table) {
  for (auto block = table.rbegin(); block != table.rend(); ++block) Release(*block);
  table.clear();
}

void BlockPool::Release(BlockId block) {
  Slot& slot = At(block);
  POLYAD_CHECK(slot.references > 0, "released more often than held");
  if (--slot.references > 0) return;
  if (slot.indexed) {
    EnterCache(block);
  } else {
    unused_.push_back(block);
  }
}

BlockPool::Match BlockPool::FindPrefix(std::span<const PrefixKey> keys, int64_t limit) const {
  Match match;
  for (size_t i = 1; i < keys.size() && match.num_blocks < limit; ++i) {
    const auto found = index_.find(keys[i]);
    if (found == index_.end()) break;
    ++match.num_blocks;
    if (At(found->second).references == 0) ++match.from_cache;
  }
  return match;
}

void BlockPool::TakePrefix(std::span<const PrefixKey> keys, int64_t count, BlockTable& table) {
  POLYAD_CHECK(static_cast<size_t>(count) < std::max<size_t>(keys.size(), 1), "more than the keys");
  for (int64_t i = 1; i <= count; ++i) {
    const auto found = index_.find(keys[static_cast<size_t>(i)]);
    POLYAD_CHECK(found != index_.end(), "the prefix was found a moment ago");
    Hold(found->second);
    table.push_back(found->second);
  }
}

void BlockPool::Publish(const PrefixKey& key, BlockId& block) {
  POLYAD_DCHECK(At(block).references > 0, "only a held block is published");
  const auto [entry, inserted] = index_.try_emplace(key, block);
  if (inserted) {
    POLYAD_CHECK(!At(block).indexed, "a block has one content");
    At(block).indexed = true;
    At(block).key = key;
    return;
  }
  const BlockId known = entry->second;
  if (known == block) return;
  Hold(known);
  Release(block);
  block = known;
}

int64_t BlockPool::NumExclusive(std::span<const BlockId> table) const {
  return std::count_if(table.begin(), table.end(),
                       [this](BlockId block) { return At(block).references == 1; });
}

void BlockPool::EnterCache(BlockId block) {
  Slot& slot = At(block);
  slot.older = newest_;
  slot.newer = kNone;
  (newest_ == kNone ? oldest_ : At(newest_).newer) = block.value();
  newest_ = block.value();
  ++num_cached_;
}

void BlockPool::LeaveCache(BlockId block) {
  const Slot& slot = At(block);
  (slot.older == kNone ? oldest_ : At(slot.older).newer) = slot.newer;
  (slot.newer == kNone ? newest_ : At(slot.newer).older) = slot.older;
  --num_cached_;
}

BlockId BlockPool::EvictOldest() {
  POLYAD_CHECK(oldest_ != kNone, "nothing to evict");
  const BlockId block(oldest_);
  LeaveCache(block);
  index_.erase(At(block).key);
  At(block).indexed = false;
  return block;
}

void BlockPool::CheckInvariants(std::span<const BlockTable* const> tables) const {
  std::vector<int32_t> owners(slots_.size(), 0);
  for (const BlockTable* table : tables) {
    for (const BlockId block : *table) ++owners[static_cast<size_t>(block.value())];
  }
  int64_t num_held_seen = 0;
  size_t num_indexed = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    POLYAD_CHECK(slots_[i].references == owners[i], "a block's references are its owners");
    if (owners[i] > 0) ++num_held_seen;
    if (slots_[i].indexed) ++num_indexed;
  }
  POLYAD_CHECK(num_indexed == index_.size(), "every indexed block is in the index once");
  POLYAD_CHECK(num_held_seen + num_available() == num_blocks(), "held + cached + unused is all");
  int64_t num_listed = 0;
  for (int64_t i = oldest_; i != kNone; i = slots_[static_cast<size_t>(i)].newer) {
    const Slot& slot = slots_[static_cast<size_t>(i)];
    POLYAD_CHECK(slot.references == 0 && slot.indexed, "a cached block is held by nobody");
    ++num_listed;
  }
  POLYAD_CHECK(num_listed == num_cached_, "the cached list has the counted length");
  for (const BlockId block : unused_) {
    POLYAD_CHECK(At(block).references == 0 && !At(block).indexed, "an unused block is empty");
  }
}

}  // namespace polyad
