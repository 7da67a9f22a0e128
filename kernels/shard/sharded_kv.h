#pragma once

// K/V pages whose kv heads the ranks of a group share: a rank stores and attends its own, with the
// heads of q that read them. A saved block is the ranks' parts one after the other. Pages are
// placed by layer whatever is asked for, so no memory goes back before the storage does.

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/shard/weight_shard.h"

namespace polyad {

class ShardedKv final : public KvStorage {
 public:
  // As Backend's. INVALID_ARGUMENT also: fewer kv heads than ranks.
  static absl::StatusOr<int64_t> BlockBytes(std::span<Backend* const> ranks, const KvShape& shape);
  static absl::StatusOr<std::unique_ptr<ShardedKv>> Create(std::span<Backend* const> ranks,
                                                           const KvShape& shape,
                                                           int64_t num_blocks);

  int64_t num_blocks() const override { return ranks_[0]->num_blocks(); }
  int64_t bytes() const override;
  KvFormat format() const override { return ranks_[0]->format(); }
  int64_t block_bytes() const override;
  void Save(int64_t block, std::span<char> to) const override;
  void Restore(int64_t block, std::span<const char> from) override;

  const KvShape& shape() const { return shape_; }  // of all ranks
  KvStorage* At(int rank) const { return ranks_[static_cast<size_t>(rank)].get(); }
  Slice HeadsOf(int rank) const {
    return SliceOf(shape_.num_kv_heads, 1, rank, static_cast<int>(ranks_.size()));
  }

 private:
  explicit ShardedKv(const KvShape& shape) : shape_(shape) {}

  const KvShape shape_;
  std::vector<std::unique_ptr<KvStorage>> ranks_;
};

}  // namespace polyad
