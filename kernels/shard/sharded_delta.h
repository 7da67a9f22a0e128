#pragma once

// An adapter's op at the ranks of a group. Ops whose cost is in what they hold for each output
// (LowRank's B, Dense, Sparse, SignBits) are split by outputs, as the base's matrices are; a rank
// has all of LowRank's A, so that an adapter costs the group no exchange of its own, and a middle's
// bits are one device's. All other ops are whole at every rank. Immutable once packed.

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/shard/output_range.h"

namespace polyad {

class ShardedDelta final : public PackedDelta {
 public:
  // As Backend::PackDelta.
  static absl::StatusOr<std::unique_ptr<ShardedDelta>> Pack(std::span<Backend* const> ranks,
                                                            const DeltaOp& op, PackShare& share);

  DeltaCost cost() const override;  // all ranks'

  bool is_split() const { return is_split_; }
  // Of one that is split: the outputs, from a segment's y_column on.
  OutputRange OutputsAt(int64_t y_column) const { return {y_column, outputs_.out, outputs_.unit}; }
  // Null: the rank has none of the outputs.
  const PackedDelta* At(int rank) const { return packed_[static_cast<size_t>(rank)].get(); }

 private:
  ShardedDelta() = default;

  bool is_split_ = false;
  OutputRange outputs_;
  std::vector<std::unique_ptr<PackedDelta>> packed_;
};

}  // namespace polyad
