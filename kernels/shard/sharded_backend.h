#pragma once

// One Backend over the backends of a group of ranks, each on a device (or a share of the CPU) of
// its own: tensor parallelism. Rows are whole at every rank; what is split is what is large. A
// matrix, and an adapter's op that is one, is split by outputs, K/V by heads: a rank computes its
// own columns of the rows, then the ranks exchange them (row_exchange.h). Every number is computed
// whole by one rank, in the order that one device has, so the bits are those of one backend,
// whatever the number of ranks (docs/decisions/0017-ranks-split-outputs-alone.md). Everything else
// runs at every rank on rows that are the same there.
//
// Memory of Allocate is rank 0's, and every rank has a copy of it; rows that a call writes must lie
// there, rows that it reads may be the host's own. What the host changes there it says by
// HostWrote. Threads: as kernels/api/backend.h says; each rank's backend is called by one thread of
// its own, or by loader threads where those may.

#include <memory>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/api/backend.h"
#include "kernels/api/communicator.h"
#include "kernels/api/ranks.h"
#include "kernels/shard/rank_memory.h"
#include "kernels/shard/rank_threads.h"
#include "kernels/shard/row_exchange.h"

namespace polyad {

inline constexpr int kMaxRanks = 64;

class ShardedBackend final : public Backend {
 public:
  // RESOURCE_EXHAUSTED: memory for what ranks exchange.
  static absl::StatusOr<std::unique_ptr<ShardedBackend>> Create(Ranks ranks);

  BackendInfo info() const override;
  DType activation_dtype() const override { return backends_[0]->activation_dtype(); }

  absl::StatusOr<std::shared_ptr<void>> Allocate(int64_t bytes) override;
  absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(
      std::span<const TensorView> parts) override;
  absl::StatusOr<std::unique_ptr<PackedDelta>> PackDelta(const DeltaOp& op,
                                                         PackShare& share) override;
  absl::StatusOr<int64_t> KvBlockBytes(const KvShape& shape) const override;
  absl::StatusOr<std::unique_ptr<KvStorage>> AllocateKv(const KvShape& shape,
                                                        int64_t num_blocks) override;

  void ProductOfRows(const PackedMatrix& weight, int64_t first_row, FloatRows x,
                     FloatRows y) override;
  void Embed(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) override;
  void AddRows(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) override;
  void Norm(const NormArgs& args, FloatRows x, ActivationRows y) override;
  void Gemm(const GemmArgs& args, ActivationRows x, FloatRows y) override;
  void RotateAndStore(const QkvArgs& args) override;
  void Attention(const AttentionArgs& args) override;
  void AddGatedPrefix(const GatedPrefixArgs& args) override;
  void Activate(ActivationKind kind, bool gated, FloatRows x, ActivationRows y) override;
  void GatherRows(FloatRows x, std::span<const int32_t> rows, FloatRows out) override;
  void ArgMax(FloatRows logits, std::span<TokenScore> best) override;
  void Draw(FloatRows logits, std::span<const DrawArgs> draws, std::span<int32_t> tokens) override;
  void Apply(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y) override;
  void TransformInput(std::span<const DeltaSegment> segments, ActivationRows x) override;
  void TransformOutput(std::span<const DeltaSegment> segments, FloatRows y) override;
  void TransformEmbedding(std::span<const DeltaSegment> segments, std::span<const int32_t> ids,
                          FloatRows rows) override;
  void Finish() override;
  void HostWrote(FloatRows rows) override;
  void Copy(FloatRows from, FloatRows to) override;
  void Copy(ActivationRows from, ActivationRows to) override;
  void Convert(FloatRows from, ActivationRows to) override;
  void Zero(FloatRows rows) override;
  void Accumulate(FloatRows x, FloatRows y) override;

 private:
  // Rows of a call at each rank.
  template <typename Rows>
  struct Everywhere {
    Rows rows;
    RankMemory::Place place;
    Rows At(int rank) const;
  };
  explicit ShardedBackend(Ranks ranks);
  int size() const { return static_cast<int>(ranks_.size()); }
  template <typename Rows>
  Everywhere<Rows> Read(Rows rows) const;
  template <typename Rows>
  Everywhere<Rows> Written(Rows rows) const;
  // call(rank, its backend) of all ranks at once.
  void ForRanks(absl::FunctionRef<void(int rank, Backend& backend)> call);
  void GatherTableRows(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out,
                       bool adds);
  // Adds the segments to y, of which the ranks have computed `ranges` so far, and exchanges both.
  void ApplyAndGather(std::span<const DeltaSegment> segments, std::vector<OutputRange> ranges,
                      ActivationRows x, FloatRows y);
  std::vector<DeltaSegment> SegmentsAt(int rank, std::span<const DeltaSegment> segments) const;
  void StoreAt(int rank, const QkvArgs& args, FloatRows qkv);
  void RotateAt(int rank, const QkvArgs& args, FloatRows qkv);

  const std::vector<std::unique_ptr<Backend>> backends_;
  const std::vector<std::unique_ptr<Communicator>> communicators_;
  std::vector<Backend*> ranks_;  // backends_
  RankMemory memory_;
  std::vector<std::unique_ptr<RowExchange>> exchanges_;
  std::vector<int64_t> no_slots_;  // reused between calls
  RankThreads threads_;
};

}  // namespace polyad
