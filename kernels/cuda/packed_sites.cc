// Ops that are no matrix products: vectors, sparse and Kronecker deltas, rotations, embeddings.

#include <variant>

#include "kernels/cuda/kronecker.cuh"
#include "kernels/cuda/packed_op.h"
#include "kernels/cuda/site_rows.cuh"
#include "kernels/cuda/sparse.cuh"
#include "kernels/cuda/weight_tiles.h"

namespace polyad::cuda {
namespace {

simt::LaunchShape RowsOfSegment(const DeltaSegment& segment) {
  return {segment.row_end - segment.row_begin, kRowThreads};
}

// A bias, or a scale of inputs or outputs.
class PackedVector final : public PackedOp {
 public:
  PackedVector(Device& device, const DeltaOp& op, std::span<const float> values, bool exact)
      : PackedOp(device, op, exact),
        values_(memory_.Keep(values)),
        cols_(static_cast<int32_t>(values.size())) {}
  Kind kind() const override { return kVector; }

  // In order, each in a launch of its own: segments may overlap.
  void Apply(std::span<const DeltaSegment> segments, const InputRows&, FloatRows y,
             CallQueue& queue) const override {
    for (const DeltaSegment& segment : segments) {
      static_cast<const PackedVector&>(OpOf(segment))
          .Run(VectorStep::kAdd, segment, RowsOf(y), queue);
    }
  }
  void TransformInput(const DeltaSegment& segment, const InputRows&, ActivationRows to,
                      CallQueue& queue) const override {
    if (exact()) {
      Run(VectorStep::kMultiply, segment, RowsOf<float>(to), queue);
    } else {
      Run(VectorStep::kMultiply, segment, RowsOf<simt::Bf16>(to), queue);
    }
  }
  void TransformOutput(const DeltaSegment& segment, FloatRows y, CallQueue& queue) const override {
    Run(VectorStep::kMultiply, segment, RowsOf(y), queue);
  }

 private:
  template <typename T>
  void Run(VectorStep step, const DeltaSegment& at, DeviceRows<T> rows, CallQueue& queue) const {
    VectorSegment own;
    own.row_begin = static_cast<int32_t>(at.row_begin);
    own.row_end = static_cast<int32_t>(at.row_end);
    own.cols = cols_;
    own.first_col = static_cast<int32_t>(at.y_column);
    own.values = values_;
    own.scale = at.scale;
    own.row_scale = queue.Reach(at.row_scale, at.row_end - at.row_begin);
    std::vector<VectorItem> items;
    for (int32_t row = own.row_begin; row < own.row_end; ++row) items.push_back({0, row});
    if (items.empty()) return;
    simt::Launch(RowsOfSegment(at), queue.stream(), ApplyVectors<T>, step,
                 queue.Put(std::span<const VectorSegment>(&own, 1)), queue.Put(items), rows);
  }

  const float* const values_;
  const int32_t cols_;
};

class PackedSparse final : public SegmentOp<SparseSegment> {
 public:
  PackedSparse(Device& device, const Sparse& op, bool exact) : SegmentOp(device, op, exact) {
    segment_.in = static_cast<int32_t>(op.in);
    segment_.out = static_cast<int32_t>(op.row_begin.size()) - 1;
    segment_.num_outputs = segment_.out;
    segment_.row_begins = memory_.Keep(op.row_begin);
    segment_.columns = memory_.Keep(op.columns);
    // None has no address, and a segment without columns is of whole rows.
    if (op.columns.empty()) segment_.columns = segment_.row_begins;
    segment_.values = memory_.Keep(op.values);
  }
  PackedSparse(Device& device, const DenseRows& op, bool exact) : SegmentOp(device, op, exact) {
    segment_.in = static_cast<int32_t>(op.values.cols);
    segment_.out = static_cast<int32_t>(op.out);
    segment_.num_outputs = static_cast<int32_t>(op.rows.size());
    segment_.outputs = memory_.Keep(op.rows);
    segment_.values = memory_.Keep(NumbersOf(op.values));
  }
  Kind kind() const override { return kSparse; }

  void Apply(std::span<const DeltaSegment> segments, const InputRows& x, FloatRows y,
             CallQueue& queue) const override {
    const std::vector<SparseSegment> own = PlacedAll(segments, queue);
    for (const std::vector<WorkItem>& items : PlanSparse(own)) {
      if (items.empty()) continue;
      if (exact()) {
        Run<float>(own, items, x, y, queue);
      } else {
        Run<simt::Bf16>(own, items, x, y, queue);
      }
    }
  }

 private:
  template <typename T>
  static void Run(const std::vector<SparseSegment>& segments, const std::vector<WorkItem>& items,
                  const InputRows& x, FloatRows y, CallQueue& queue) {
    const SparseArgs<T> args{queue.Put(segments), queue.Put(items), x.Of<T>(), RowsOf(y)};
    simt::Launch({static_cast<int64_t>(items.size()), kSparseThreads}, queue.stream(),
                 SparseProducts<T>, args);
  }
};

class PackedKronecker final : public SegmentOp<KroneckerSegment> {
 public:
  PackedKronecker(Device& device, const Kronecker& op, bool exact) : SegmentOp(device, op, exact) {
    segment_.l = static_cast<int32_t>(op.c.rows);
    segment_.m = static_cast<int32_t>(op.c.cols);
    segment_.k = static_cast<int32_t>(op.d.rows);
    segment_.n = static_cast<int32_t>(op.d.cols);
    segment_.c = memory_.Keep(NumbersOf(op.c, op.scale));
    segment_.d_transposed = memory_.Keep(TransposedNumbersOf(op.d));
  }
  Kind kind() const override { return kKronecker; }

  void Apply(std::span<const DeltaSegment> segments, const InputRows& x, FloatRows y,
             CallQueue& queue) const override {
    const std::vector<KroneckerSegment> own = PlacedAll(segments, queue);
    for (const std::vector<WorkItem>& items : PlanKronecker(own)) {
      if (exact()) {
        Run<float>(own, items, x, y, queue);
      } else {
        Run<simt::Bf16>(own, items, x, y, queue);
      }
    }
  }

 private:
  template <typename T>
  static void Run(const std::vector<KroneckerSegment>& segments, const std::vector<WorkItem>& items,
                  const InputRows& x, FloatRows y, CallQueue& queue) {
    const KroneckerArgs<T> args{queue.Put(segments), queue.Put(items), x.Of<T>(), RowsOf(y)};
    simt::Launch({static_cast<int64_t>(items.size()), kKroneckerThreads}, queue.stream(),
                 KroneckerProducts<T>, args);
  }
};

class PackedPairRotation final : public PackedOp {
 public:
  PackedPairRotation(Device& device, const PairRotation& op, bool exact)
      : PackedOp(device, op, exact),
        args_{memory_.Keep(op.f),
              memory_.Keep(op.g),
              static_cast<int32_t>(op.f.size()),
              static_cast<int32_t>(op.group / 2),
              0,
              0,
              {}} {}
  Kind kind() const override { return kRotation; }
  void TransformOutput(const DeltaSegment& segment, FloatRows y, CallQueue& queue) const override {
    PairRotationArgs args = args_;
    args.row_begin = static_cast<int32_t>(segment.row_begin);
    args.first_col = static_cast<int32_t>(segment.y_column);
    args.y = RowsOf(y);
    simt::Launch(RowsOfSegment(segment), queue.stream(), RotatePairs, args);
  }

 private:
  const PairRotationArgs args_;
};

class PackedBlockRotation final : public PackedOp {
 public:
  PackedBlockRotation(Device& device, const BlockRotation& op, bool exact)
      : PackedOp(device, op, exact) {
    args_.order = memory_.Keep(op.order);
    args_.blocks = memory_.Keep(op.blocks);
    args_.size = static_cast<int32_t>(op.size);
    args_.in = static_cast<int32_t>(op.in);
    args_.shared = static_cast<int64_t>(op.blocks.size()) == op.size * op.size ? 1 : 0;
  }
  Kind kind() const override { return kRotation; }
  void TransformInput(const DeltaSegment& segment, const InputRows& x, ActivationRows to,
                      CallQueue& queue) const override {
    if (exact()) {
      Run<float>(segment, x, to, queue);
    } else {
      Run<simt::Bf16>(segment, x, to, queue);
    }
  }

 private:
  // By way of other rows: x may be the rows themselves.
  template <typename T>
  void Run(const DeltaSegment& segment, const InputRows& x, ActivationRows to,
           CallQueue& queue) const {
    BlockRotationArgs args = args_;
    args.row_begin = static_cast<int32_t>(segment.row_begin);
    const int64_t rows = segment.row_end - segment.row_begin;
    const DeviceRows<T> turned{queue.Scratch<T>(rows * args.in), rows, args.in, args.in};
    simt::Launch(RowsOfSegment(segment), queue.stream(), RotateBlocks<T>, args, x.Of<T>(), turned);
    const DeviceRows<const T> from{turned.data, rows, args.in, args.in};
    simt::Launch(RowsOfSegment(segment), queue.stream(), MoveRows<T, T>, Move::kCopy, from,
                 RowsOf<T>(to.Slice(segment.row_begin, segment.row_end)));
  }

  BlockRotationArgs args_ = {};
};

class PackedEmbedding final : public PackedOp {
 public:
  PackedEmbedding(Device& device, const EmbeddingRows& op, bool exact)
      : PackedOp(device, op, exact), replaces_(true) {
    args_.hidden = static_cast<int32_t>(op.rows.cols);
    args_.n = static_cast<int32_t>(op.ids.size());
    args_.ids = memory_.Keep(op.ids);
    args_.rows = memory_.Keep(NumbersOf(op.rows));
  }
  PackedEmbedding(Device& device, const EmbeddingLowRank& op, bool exact)
      : PackedOp(device, op, exact), replaces_(false) {
    args_.hidden = static_cast<int32_t>(op.b.rows);
    args_.n = static_cast<int32_t>(op.a.cols);
    args_.rank = static_cast<int32_t>(op.a.rows);
    args_.a = memory_.Keep(TransposedNumbersOf(op.a));
    args_.b = memory_.Keep(NumbersOf(op.b, op.scale));
    args_.column_scale = memory_.Keep(op.column_scale);
  }
  Kind kind() const override { return kEmbedding; }
  void TransformEmbedding(const DeltaSegment& segment, const int32_t* ids, FloatRows rows,
                          CallQueue& queue) const override {
    EmbeddingArgs args = args_;
    args.tokens = ids;
    args.row_begin = static_cast<int32_t>(segment.row_begin);
    args.e = RowsOf(rows);
    simt::Launch(RowsOfSegment(segment), queue.stream(),
                 replaces_ ? ReplaceEmbeddings : AddLowRankEmbeddings, args);
  }

 private:
  const bool replaces_;
  EmbeddingArgs args_ = {};
};

struct SitePacker {
  Device& device;
  bool exact;

  template <typename Op>
  std::unique_ptr<PackedOp> operator()(const Op& op) const {
    if constexpr (requires { PackedSparse(device, op, exact); }) {
      return std::make_unique<PackedSparse>(device, op, exact);
    } else if constexpr (requires { PackedEmbedding(device, op, exact); }) {
      return std::make_unique<PackedEmbedding>(device, op, exact);
    } else if constexpr (requires { op.values.size(); }) {
      return std::make_unique<PackedVector>(device, op, op.values, exact);
    } else {
      return nullptr;
    }
  }
  std::unique_ptr<PackedOp> operator()(const Kronecker& op) const {
    return std::make_unique<PackedKronecker>(device, op, exact);
  }
  std::unique_ptr<PackedOp> operator()(const PairRotation& op) const {
    return std::make_unique<PackedPairRotation>(device, op, exact);
  }
  std::unique_ptr<PackedOp> operator()(const BlockRotation& op) const {
    return std::make_unique<PackedBlockRotation>(device, op, exact);
  }
};

}  // namespace

std::unique_ptr<PackedOp> PackSiteOp(Device& device, const DeltaOp& op, bool exact) {
  return std::visit(SitePacker{device, exact}, op);
}

}  // namespace polyad::cuda
