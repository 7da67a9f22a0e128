#pragma once

// A rank's part of a linear layer and of its low-rank deltas, over the rank's own Backend:
//   outputs split: y_r = W_r x + b_r. A is split by ranks: middle = gathered A_r x; B as W is.
//   inputs split:  y = sum of W_r x_r + b. middle = sum of A_r x_r; B is split by outputs: a rank
//                  adds its own to its part of y, before the one sum of y.
// So a delta costs the group no more than its middle (S-LoRA: Sheng et al. 2024, section 6), for
// all adapters of a call at once, and no rank holds what another one does. A call's sums are of
// the same shapes whatever rows are beside a row: its bits do not depend on them. One thread.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/api/communicator.h"
#include "kernels/shard/weight_shard.h"

namespace polyad {

// Of a layer whose outputs are several matrices' (q | k | v, gate | up), one of them.
struct LinearPart {
  TensorView weight = {};
  int64_t unit = 1;  // of outputs that stay together: a head's
};

// One adapter's delta of one part, a rank's share of it.
struct ShardedLowRank {
  std::unique_ptr<PackedMatrix> a;  // null: this rank has none of the ranks
  std::unique_ptr<PackedDelta> b;   // null: none of the outputs
  int64_t rank = 0;                 // of the whole delta
  int64_t y_column = 0;
  DeltaCost cost;
};

struct ShardedSegment {
  int64_t row_begin = 0;
  int64_t row_end = 0;
  const ShardedLowRank* op = nullptr;
  float scale = 1.0f;
};

inline constexpr int kMaxShards = 64;
inline constexpr int64_t kMiddleElements = 64;  // a middle row's stride is a multiple of it

struct ShardedLimits {
  int64_t max_middle = 0;  // of a call: rows times the middle's stride, of all its segments
};

class ShardedLinear {
 public:
  // `bias` is of all outputs, or null; parts of a layer split by inputs are one. All are borrowed
  // for the call. INVALID_ARGUMENT: more than one part there, fewer units than ranks, a
  // quantised group that would be cut, more ranks than kMaxShards.
  // RESOURCE_EXHAUSTED: memory for the limits.
  static absl::StatusOr<std::unique_ptr<ShardedLinear>> Create(Backend& backend,
                                                               Communicator& group, ShardAxis axis,
                                                               std::span<const LinearPart> parts,
                                                               const float* bias,
                                                               const ShardedLimits& limits);

  // This rank's share of a delta of part `part`. INVALID_ARGUMENT where shapes do not chain.
  absl::StatusOr<ShardedLowRank> Pack(const LowRank& op, int64_t part) const;

  // Outputs split: x whole, y this rank's outputs, part after part. Inputs split: x this rank's
  // inputs, y whole and without gaps between rows, the same at every rank. Every rank makes the
  // call with the same segments.
  void Run(ActivationRows x, std::span<const ShardedSegment> segments, FloatRows y);

  int64_t num_own_inputs() const { return weight_->in(); }
  int64_t num_own_outputs() const { return weight_->out(); }
  // Of part `part`: which of its outputs (or of the layer's inputs) this rank has.
  Slice OwnOutputs(int64_t part) const { return own_outputs_[static_cast<size_t>(part)]; }
  Slice own_inputs() const { return own_inputs_; }

 private:
  ShardedLinear(Backend& backend, Communicator& group, ShardAxis axis)
      : backend_(backend), group_(group), axis_(axis) {}
  absl::Status Allocate(const ShardedLimits& limits);
  Slice RanksOf(int64_t rank) const;
  // middle_ <- what every rank needs to multiply by B, segment after segment.
  void MakeMiddles(ActivationRows x, std::span<const ShardedSegment> segments);
  void GatherMiddles(ActivationRows x, std::span<const ShardedSegment> segments);
  void SumMiddles(ActivationRows x, std::span<const ShardedSegment> segments);
  void AddDeltas(std::span<const ShardedSegment> segments, FloatRows y);

  Backend& backend_;
  Communicator& group_;
  const ShardAxis axis_;
  int64_t num_inputs_ = 0;
  ShardedLimits limits_;
  std::vector<Slice> own_outputs_;  // of each part
  std::vector<int64_t> y_columns_;
  std::vector<int64_t> part_outputs_;  // of all ranks
  Slice own_inputs_;
  std::unique_ptr<PackedMatrix> weight_;
  std::vector<float> bias_;
  std::shared_ptr<void> own_;       // this rank's parts of middles
  std::shared_ptr<void> gathered_;  // all ranks'
  std::shared_ptr<void> middle_;    // [rows, rank up to the stride] of each segment, zeros behind
  std::shared_ptr<void> rounded_;   // likewise, as activations
};

}  // namespace polyad
