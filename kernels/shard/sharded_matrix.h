#pragma once

// A weight matrix whose outputs the ranks of a group share: of each part of it (q, k, v; gate, up)
// every rank has a run of whole outputs, packed by its own backend. So each output is a sum that
// one rank makes, over the same numbers in the same order as one device would. Immutable once
// packed.

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/shard/output_range.h"

namespace polyad {

class ShardedMatrix final : public PackedMatrix {
 public:
  // As Backend::PackMatrix. INVALID_ARGUMENT also: rows wider than ranks can exchange.
  static absl::StatusOr<std::unique_ptr<ShardedMatrix>> Pack(std::span<Backend* const> ranks,
                                                             std::span<const TensorView> parts);

  int64_t out() const override { return out_; }
  int64_t in() const override { return in_; }
  PrecisionBytes bytes() const override;  // all ranks'

  // Of each part.
  std::span<const OutputRange> ranges() const { return ranges_; }
  // Null: the rank has none of the part's outputs.
  const PackedMatrix* Part(size_t part, int rank) const {
    return packed_[static_cast<size_t>(rank)][part].get();
  }
  // The rank that has output `row` of a matrix of one part, and which of its own it is.
  struct Owner {
    int32_t rank = 0;
    int32_t row = 0;
  };
  Owner OwnerOf(int64_t row) const;

 private:
  ShardedMatrix() = default;

  int64_t out_ = 0;
  int64_t in_ = 0;
  std::vector<OutputRange> ranges_;
  std::vector<std::vector<std::unique_ptr<PackedMatrix>>> packed_;  // [rank][part]
};

}  // namespace polyad
