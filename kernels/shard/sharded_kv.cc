#include "kernels/shard/sharded_kv.h"

#include <utility>

#include "absl/strings/str_format.h"

namespace polyad {
namespace {

// The ranks' own.
absl::StatusOr<std::vector<KvShape>> ShapesOf(const KvShape& shape, size_t num_ranks) {
  const auto size = static_cast<int>(num_ranks);
  if (shape.num_kv_heads < size) {
    return absl::InvalidArgumentError(
        absl::StrFormat("K/V pages split among %d ranks: expected at least as many kv heads, got "
                        "%d",
                        size, shape.num_kv_heads));
  }
  std::vector<KvShape> shapes(num_ranks, shape);
  for (int rank = 0; rank < size; ++rank) {
    KvShape& own = shapes[static_cast<size_t>(rank)];
    own.num_kv_heads = SliceOf(shape.num_kv_heads, 1, rank, size).size();
    own.placement = KvPlacement::kByLayer;
  }
  return shapes;
}

}  // namespace

absl::StatusOr<int64_t> ShardedKv::BlockBytes(std::span<Backend* const> ranks,
                                              const KvShape& shape) {
  const absl::StatusOr<std::vector<KvShape>> shapes = ShapesOf(shape, ranks.size());
  if (!shapes.ok()) return shapes.status();
  int64_t sum = 0;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const absl::StatusOr<int64_t> bytes = ranks[rank]->KvBlockBytes((*shapes)[rank]);
    if (!bytes.ok()) return bytes.status();
    sum += *bytes;
  }
  return sum;
}

absl::StatusOr<std::unique_ptr<ShardedKv>> ShardedKv::Create(std::span<Backend* const> ranks,
                                                             const KvShape& shape,
                                                             int64_t num_blocks) {
  const absl::StatusOr<std::vector<KvShape>> shapes = ShapesOf(shape, ranks.size());
  if (!shapes.ok()) return shapes.status();
  std::unique_ptr<ShardedKv> kv(new ShardedKv(shape));
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    absl::StatusOr<std::unique_ptr<KvStorage>> own =
        ranks[rank]->AllocateKv((*shapes)[rank], num_blocks);
    if (!own.ok()) return own.status();
    kv->ranks_.push_back(*std::move(own));
  }
  return kv;
}

int64_t ShardedKv::bytes() const {
  int64_t sum = 0;
  for (const auto& rank : ranks_) sum += rank->bytes();
  return sum;
}

int64_t ShardedKv::block_bytes() const {
  int64_t sum = 0;
  for (const auto& rank : ranks_) sum += rank->block_bytes();
  return sum;
}

void ShardedKv::Save(int64_t block, std::span<char> to) const {
  for (const auto& rank : ranks_) {
    const auto bytes = static_cast<size_t>(rank->block_bytes());
    rank->Save(block, to.first(bytes));
    to = to.subspan(bytes);
  }
}

void ShardedKv::Restore(int64_t block, std::span<const char> from) {
  for (const auto& rank : ranks_) {
    const auto bytes = static_cast<size_t>(rank->block_bytes());
    rank->Restore(block, from.first(bytes));
    from = from.subspan(bytes);
  }
}

}  // namespace polyad
