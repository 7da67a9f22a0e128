#include "engine/cache/block_pool.h"

#include <algorithm>
#include <functional>

#include "engine/base/check.h"

namespace polyad {

BlockPool::BlockPool(int64_t num_blocks, const BlockPages::Layout& layout)
    : slots_(static_cast<size_t>(num_blocks)), pages_(num_blocks, layout) {
  POLYAD_CHECK(num_blocks > 0, "a pool has blocks");
  unused_.reserve(slots_.size());
  for (int64_t i = 0; i < num_blocks; ++i) {
    At(i).usable = pages_.IsUsable(i);
    AddUnused(BlockId(i));
  }
}

void BlockPool::AddUnused(BlockId block) {
  Slot& slot = At(block);
  if (!slot.usable) return;
  ++num_unused_;
  if (std::exchange(slot.listed, true)) return;
  unused_.push_back(block.value());
  std::push_heap(unused_.begin(), unused_.end(), std::greater<>());
}

BlockId BlockPool::TakeUnused() {
  while (true) {
    POLYAD_CHECK(!unused_.empty(), "every unused block is listed");
    std::pop_heap(unused_.begin(), unused_.end(), std::greater<>());
    const BlockId block(unused_.back());
    unused_.pop_back();
    At(block).listed = false;
    if (!IsUnused(At(block))) continue;
    --num_unused_;
    return block;
  }
}

void BlockPool::Allocate(int64_t count, BlockTable& table) {
  POLYAD_CHECK(count <= num_available(), "the scheduler plans within the pool");
  for (int64_t i = 0; i < count; ++i) {
    const BlockId block = num_unused_ > 0 ? TakeUnused() : EvictOne();
    At(block).references = 1;
    ++num_held_;
    pages_.CountHeld(block.value(), 1);
    table.push_back(block);
  }
}

void BlockPool::Hold(BlockId block) {
  Slot& slot = At(block);
  if (slot.references == 0) {
    POLYAD_CHECK(slot.indexed, "an unused block cannot be shared");
    LeaveCache(block);
    ++num_held_;
    pages_.CountHeld(block.value(), 1);
  }
  if (++slot.references == 2) ++num_shared_;
}

void BlockPool::ReleaseAll(BlockTable& table) {
  ReleaseRange(0, static_cast<int64_t>(table.size()), table);
  table.clear();
}

void BlockPool::ReleaseRange(int64_t begin, int64_t end, BlockTable& table) {
  for (int64_t i = end - 1; i >= begin; --i) {
    BlockId& block = table[static_cast<size_t>(i)];
    if (block.valid()) Release(block);
    block = BlockId();
  }
}

void BlockPool::Release(BlockId block) {
  Slot& slot = At(block);
  POLYAD_CHECK(slot.references > 0, "released more often than held");
  if (--slot.references == 1) --num_shared_;
  if (slot.references > 0) return;
  --num_held_;
  pages_.CountHeld(block.value(), -1);
  if (slot.indexed) {
    EnterCache(block);
  } else {
    AddUnused(block);
  }
}

void BlockPool::Grow(int64_t num_unused, const std::function<bool(int64_t pages)>& take) {
  while (num_unused_ < num_unused) {
    const std::vector<int64_t> absent = pages_.NextToBring();
    if (absent.empty() || !take(static_cast<int64_t>(absent.size()))) return;
    for (const int64_t page : absent) {
      pages_.Bring(page);
      UpdateUsable(page);
    }
  }
}

std::vector<int64_t> BlockPool::Shrink(int64_t count) {
  std::vector<int64_t> given = pages_.Coldest(count);
  for (const int64_t page : given) {
    const BlockPages::Range blocks = pages_.BlocksOf(page);
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      if (At(block).references > 0 || !At(block).indexed) continue;
      Evict(BlockId(block));
      AddUnused(BlockId(block));
    }
    pages_.Drop(page);
    UpdateUsable(page);
  }
  return given;
}

void BlockPool::Condemn(int64_t count) {
  if (count == 0 && pages_.num_condemned() == 0) return;
  for (const int64_t page : pages_.Condemn(count)) UpdateUsable(page);
}

void BlockPool::UpdateUsable(int64_t page) {
  const BlockPages::Range blocks = pages_.BlocksOf(page);
  for (int64_t block = blocks.begin; block < blocks.end; ++block) {
    Slot& slot = At(block);
    const bool usable = pages_.IsUsable(block);
    if (usable == slot.usable) continue;
    if (IsUnused(slot)) --num_unused_;
    slot.usable = usable;
    if (IsUnused(slot)) AddUnused(BlockId(block));
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

void BlockPool::Publish(const PrefixKey& key, BlockOwner owner, BlockId& block) {
  POLYAD_DCHECK(At(block).references > 0, "only a held block is published");
  const auto [entry, inserted] = index_.try_emplace(key, block);
  if (inserted) {
    POLYAD_CHECK(!At(block).indexed, "a block has one content");
    At(block).indexed = true;
    At(block).key = key;
    At(block).owner = owner;
    if (owner == kSoftPrompts) ++num_soft_prompt_;
    return;
  }
  const BlockId known = entry->second;
  if (known == block) return;
  Hold(known);
  Release(block);
  block = known;
}

int64_t BlockPool::NumExclusive(std::span<const BlockId> table) const {
  return std::count_if(table.begin(), table.end(), [this](BlockId block) {
    if (!block.valid()) return false;
    const Slot& slot = At(block);
    return slot.references == 1 && (slot.usable || slot.indexed);
  });
}

void BlockPool::Forget(std::span<const PrefixKey> keys) {
  for (const PrefixKey& key : keys) {
    const auto found = index_.find(key);
    if (found == index_.end()) continue;
    const BlockId block = found->second;
    if (At(block).references == 0) {
      LeaveCache(block);
      Unindex(At(block));
      AddUnused(block);
    } else {
      Unindex(At(block));
    }
  }
}

void BlockPool::EnterCache(BlockId block) {
  Slot& slot = At(block);
  CachedList& list = cached_[slot.owner];
  slot.older = list.newest;
  slot.newer = kNone;
  (list.newest == kNone ? list.oldest : At(list.newest).newer) = block.value();
  list.newest = block.value();
  SetCount(slot.owner, list, list.count + 1);
  pages_.CountCached(block.value(), 1, slot.owner == kSoftPrompts);
  pages_.Touch(block.value(), now_us_);
}

void BlockPool::LeaveCache(BlockId block) {
  const Slot& slot = At(block);
  const auto found = cached_.find(slot.owner);
  POLYAD_CHECK(found != cached_.end(), "a cached block is in its owner's list");
  CachedList& list = found->second;
  (slot.older == kNone ? list.oldest : At(slot.older).newer) = slot.newer;
  (slot.newer == kNone ? list.newest : At(slot.newer).older) = slot.older;
  SetCount(slot.owner, list, list.count - 1);
  pages_.CountCached(block.value(), -1, slot.owner == kSoftPrompts);
  if (list.count == 0) cached_.erase(found);
}

void BlockPool::SetCount(BlockOwner owner, CachedList& list, int64_t count) {
  num_cached_ += count - list.count;
  if (owner != kSoftPrompts) {
    largest_.erase({list.count, owner});
    if (count > 0) largest_.insert({count, owner});
  }
  list.count = count;
}

BlockId BlockPool::EvictOne() {
  POLYAD_CHECK(num_cached_ > 0, "nothing to evict");
  const BlockOwner owner = largest_.empty() ? kSoftPrompts : largest_.rbegin()->second;
  const BlockId block(cached_.at(owner).oldest);
  Evict(block);
  return block;
}

void BlockPool::Evict(BlockId block) {
  evicted_.push_back({At(block).key, block});
  LeaveCache(block);
  Unindex(At(block));
}

void BlockPool::Unindex(Slot& slot) {
  index_.erase(slot.key);
  slot.indexed = false;
  if (slot.owner == kSoftPrompts) --num_soft_prompt_;
}

void BlockPool::CheckInvariants(std::span<const BlockTable* const> tables) const {
  std::vector<int32_t> owners(slots_.size(), 0);
  for (const BlockTable* table : tables) {
    for (const BlockId block : *table) {
      if (block.valid()) ++owners[static_cast<size_t>(block.value())];
    }
  }
  int64_t num_held_seen = 0;
  int64_t num_shared_seen = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    POLYAD_CHECK(slots_[i].references == owners[i], "a block's references are its owners");
    if (owners[i] > 0) ++num_held_seen;
    if (owners[i] > 1) ++num_shared_seen;
  }
  POLYAD_CHECK(num_held_seen == num_held_, "held blocks are counted");
  POLYAD_CHECK(num_shared_seen == num_shared_, "shared blocks are counted");
  CheckUnused();
  CheckIndex();
  CheckCachedLists();
  pages_.CheckInvariants();
}

void BlockPool::CheckUnused() const {
  int64_t num_absent = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    const auto block = static_cast<int64_t>(i);
    POLYAD_CHECK(slot.usable == pages_.IsUsable(block), "a block is usable where its pages are");
    POLYAD_CHECK(!IsUnused(slot) || slot.listed, "every unused block is listed");
    if (slot.references == 0 && !slot.indexed && !slot.usable) ++num_absent;
    if (slot.references == 0 && !slot.indexed) continue;
    const BlockPages::Range range = pages_.PagesOf(block);
    for (int64_t page = range.begin; page < range.end; ++page) {
      POLYAD_CHECK(pages_.IsPresent(page), "what holds something is there");
    }
  }
  POLYAD_CHECK(num_held_ + num_available() + num_absent == num_blocks(),
               "held + cached + unused + absent is all");
  std::vector<bool> is_listed(slots_.size(), false);
  for (const int64_t block : unused_) {
    const auto i = static_cast<size_t>(block);
    POLYAD_CHECK(slots_[i].listed && !is_listed[i], "a block is listed once");
    POLYAD_CHECK(IsUnused(slots_[i]) || !slots_[i].usable, "what is listed is unused, or was");
    is_listed[i] = true;
  }
}

void BlockPool::CheckIndex() const {
  size_t num_indexed = 0;
  int64_t num_soft_prompt_seen = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (!slot.indexed) continue;
    ++num_indexed;
    if (slot.owner == kSoftPrompts) ++num_soft_prompt_seen;
    const auto found = index_.find(slot.key);
    POLYAD_CHECK(found != index_.end() && found->second.value() == static_cast<int64_t>(i),
                 "a findable block is found by its key");
  }
  POLYAD_CHECK(num_indexed == index_.size(), "every indexed block is in the index once");
  POLYAD_CHECK(num_soft_prompt_seen == num_soft_prompt_, "soft prompts' blocks are counted");
}

void BlockPool::CheckCachedLists() const {
  int64_t num_listed = 0;
  for (const auto& [owner, list] : cached_) {
    int64_t count = 0;
    for (int64_t i = list.oldest; i != kNone; i = slots_[static_cast<size_t>(i)].newer) {
      const Slot& slot = slots_[static_cast<size_t>(i)];
      POLYAD_CHECK(slot.references == 0 && slot.indexed, "a cached block is held by nobody");
      POLYAD_CHECK(slot.owner == owner, "a cached block is in its owner's list");
      ++count;
    }
    POLYAD_CHECK(count == list.count && count > 0, "a cached list has the counted length");
    POLYAD_CHECK(owner == kSoftPrompts || largest_.count({count, owner}) == 1,
                 "every owner can be chosen for eviction");
    num_listed += count;
  }
  POLYAD_CHECK(num_listed == num_cached_, "every cached block is listed");
}

}  // namespace polyad
