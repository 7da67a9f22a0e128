#include "kernels/simt/recording.h"

namespace polyad::simt {
namespace {

bool SameKind(const Recording::Item& a, const Recording::Item& b) {
  return a.kernel == b.kernel && a.at == b.at && a.bytes == b.bytes;
}

}  // namespace

void Recording::AddClear(void* to, int64_t bytes) {
  Item item;
  item.to = to;
  item.bytes = bytes;
  items_.push_back(item);
}

void Recording::Clear() {
  items_.clear();
  bytes_.clear();
}

// As FNV-1a, by words, and mixed further: words are addresses and sizes.
uint64_t Recording::ShapeHash() const {
  uint64_t hash = 14695981039346656037ull;
  for (const Item& item : items_) {
    for (const uint64_t word :
         {uint64_t{reinterpret_cast<uintptr_t>(item.kernel)}, static_cast<uint64_t>(item.bytes)}) {
      hash = (hash ^ word) * 1099511628211ull;
      hash ^= hash >> 29;
    }
  }
  return hash;
}

bool Recording::SameShape(const Recording& other) const {
  if (items_.size() != other.items_.size()) return false;
  for (size_t i = 0; i < items_.size(); ++i) {
    if (!SameKind(items_[i], other.items_[i])) return false;
  }
  return true;
}

bool Recording::SameArguments(const Item& own, const Recording& other, const Item& others) const {
  const size_t size = own.at[static_cast<size_t>(own.num_arguments)] - own.at[0];
  return size == 0 || std::memcmp(Argument(own, 0), other.Argument(others, 0), size) == 0;
}

std::vector<int32_t> Recording::DifferencesFrom(const Recording& other) const {
  std::vector<int32_t> changed;
  for (size_t i = 0; i < items_.size(); ++i) {
    const Item& own = items_[i];
    const Item& others = other.items_[i];
    const bool same = own.shape.blocks == others.shape.blocks &&
                      own.shape.threads == others.shape.threads &&
                      own.shape.shared_bytes == others.shape.shared_bytes && own.to == others.to &&
                      SameArguments(own, other, others);
    if (!same) changed.push_back(static_cast<int32_t>(i));
  }
  return changed;
}

void Recording::TakeItem(int32_t i, const Recording& other) {
  const auto index = static_cast<size_t>(i);
  const Item& item = items_[index] = other.items_[index];
  const size_t begin = item.at[0];
  const size_t size = item.at[static_cast<size_t>(item.num_arguments)] - begin;
  if (size > 0) std::memcpy(bytes_.data() + begin, other.bytes_.data() + begin, size);
}

}  // namespace polyad::simt
