#include "tests/kernels/cuda/emulated_sites.h"

#include "kernels/cuda/kronecker.cuh"
#include "kernels/cuda/site_rows.cuh"
#include "kernels/cuda/sparse.cuh"

namespace polyad::test {
namespace {

template <typename Segment, typename Op>
std::vector<Segment> SegmentsOf(std::span<const DeviceDelta* const> deltas,
                                std::span<const DeltaSegment> segments) {
  std::vector<Segment> own;
  for (size_t i = 0; i < segments.size(); ++i) {
    own.push_back(Placed(static_cast<const Op*>(deltas[i])->segment(), segments[i]));
  }
  return own;
}

class DeviceSparse final : public DeviceDelta {
 public:
  DeviceSparse(const Sparse& op, bool exact)
      : exact_(exact), row_begins_(op.row_begin), columns_(op.columns), values_(op.values) {
    // An array without elements has no address, and a segment without columns is of whole rows.
    if (op.columns.empty()) columns_ = DeviceArray<int32_t>(std::vector<int32_t>{0});
    segment_.in = static_cast<int32_t>(op.in);
    segment_.out = static_cast<int32_t>(op.row_begin.size()) - 1;
    segment_.num_outputs = segment_.out;
    Point();
  }
  DeviceSparse(const DenseRows& op, bool exact)
      : exact_(exact), outputs_(op.rows), values_(ValuesOf(op.values)) {
    segment_.in = static_cast<int32_t>(op.values.cols);
    segment_.out = static_cast<int32_t>(op.out);
    segment_.num_outputs = static_cast<int32_t>(op.rows.size());
    Point();
  }
  Kind kind() const override { return kSparse; }
  cuda::SparseSegment segment() const { return segment_; }

  void Apply(std::span<const DeviceDelta* const> deltas, std::span<const DeltaSegment> segments,
             const DeviceActivations& x, FloatRows y, simt::Stream stream) const override {
    const auto own = SegmentsOf<cuda::SparseSegment, DeviceSparse>(deltas, segments);
    for (const std::vector<cuda::WorkItem>& items : cuda::PlanSparse(own)) {
      if (items.empty()) continue;
      if (exact_) {
        Run<float>(own, items, x, y, stream);
      } else {
        Run<simt::Bf16>(own, items, x, y, stream);
      }
    }
  }

 private:
  void Point() {
    segment_.row_begins = row_begins_.data();
    segment_.columns = columns_.data();
    segment_.outputs = outputs_.data();
    segment_.values = values_.data();
  }
  template <typename T>
  static void Run(const std::vector<cuda::SparseSegment>& segments,
                  const std::vector<cuda::WorkItem>& items, const DeviceActivations& x, FloatRows y,
                  simt::Stream stream) {
    const cuda::SparseArgs<T> args{segments.data(), items.data(), x.Of<T>(), RowsOf(y)};
    simt::Launch({static_cast<int64_t>(items.size()), cuda::kSparseThreads}, stream,
                 cuda::SparseProducts<T>, args);
  }

  const bool exact_;
  const DeviceArray<int32_t> row_begins_;
  DeviceArray<int32_t> columns_;
  const DeviceArray<int32_t> outputs_;
  const DeviceArray<float> values_;
  cuda::SparseSegment segment_;
};

std::vector<float> Transposed(const TensorView& tensor) {
  std::vector<float> values;
  for (int64_t col = 0; col < tensor.cols; ++col) {
    for (int64_t row = 0; row < tensor.rows; ++row) values.push_back(ElementOf(tensor, row, col));
  }
  return values;
}

class DeviceKronecker final : public DeviceDelta {
 public:
  DeviceKronecker(const Kronecker& op, bool exact)
      : exact_(exact), c_(ValuesOf(op.c, op.scale)), d_(Transposed(op.d)) {
    segment_.l = static_cast<int32_t>(op.c.rows);
    segment_.m = static_cast<int32_t>(op.c.cols);
    segment_.k = static_cast<int32_t>(op.d.rows);
    segment_.n = static_cast<int32_t>(op.d.cols);
    segment_.c = c_.data();
    segment_.d_transposed = d_.data();
  }
  Kind kind() const override { return kKronecker; }
  cuda::KroneckerSegment segment() const { return segment_; }

  void Apply(std::span<const DeviceDelta* const> deltas, std::span<const DeltaSegment> segments,
             const DeviceActivations& x, FloatRows y, simt::Stream stream) const override {
    const auto own = SegmentsOf<cuda::KroneckerSegment, DeviceKronecker>(deltas, segments);
    for (const std::vector<cuda::WorkItem>& items : cuda::PlanKronecker(own)) {
      if (exact_) {
        Run<float>(own, items, x, y, stream);
      } else {
        Run<simt::Bf16>(own, items, x, y, stream);
      }
    }
  }

 private:
  template <typename T>
  static void Run(const std::vector<cuda::KroneckerSegment>& segments,
                  const std::vector<cuda::WorkItem>& items, const DeviceActivations& x, FloatRows y,
                  simt::Stream stream) {
    const cuda::KroneckerArgs<T> args{segments.data(), items.data(), x.Of<T>(), RowsOf(y)};
    simt::Launch({static_cast<int64_t>(items.size()), cuda::kKroneckerThreads}, stream,
                 cuda::KroneckerProducts<T>, args);
  }

  const bool exact_;
  const DeviceArray<float> c_;
  const DeviceArray<float> d_;
  cuda::KroneckerSegment segment_;
};

simt::LaunchShape RowsOfSegment(const DeltaSegment& segment) {
  return {segment.row_end - segment.row_begin, cuda::kRowThreads};
}

class DevicePairRotation final : public DeviceDelta {
 public:
  explicit DevicePairRotation(const PairRotation& op)
      : f_(op.f), g_(op.g), args_{f_.data(),
                                  g_.data(),
                                  static_cast<int32_t>(op.f.size()),
                                  static_cast<int32_t>(op.group / 2),
                                  0,
                                  0,
                                  {}} {}
  Kind kind() const override { return kRotation; }
  void TransformOutput(const DeltaSegment& segment, FloatRows y,
                       simt::Stream stream) const override {
    cuda::PairRotationArgs args = args_;
    args.row_begin = static_cast<int32_t>(segment.row_begin);
    args.first_col = static_cast<int32_t>(segment.y_column);
    args.y = RowsOf(y);
    simt::Launch(RowsOfSegment(segment), stream, cuda::RotatePairs, args);
  }

 private:
  const DeviceArray<float> f_;
  const DeviceArray<float> g_;
  const cuda::PairRotationArgs args_;
};

class DeviceBlockRotation final : public DeviceDelta {
 public:
  DeviceBlockRotation(const BlockRotation& op, bool exact)
      : exact_(exact), order_(op.order), blocks_(op.blocks) {
    args_.order = order_.data();
    args_.blocks = blocks_.data();
    args_.size = static_cast<int32_t>(op.size);
    args_.in = static_cast<int32_t>(op.in);
    args_.shared = static_cast<int64_t>(op.blocks.size()) == op.size * op.size ? 1 : 0;
  }
  Kind kind() const override { return kRotation; }
  void TransformInput(const DeltaSegment& segment, const DeviceActivations& x, ActivationRows to,
                      simt::Stream stream) const override {
    if (exact_) {
      Run<float>(segment, x.exact_rows(), to, stream);
    } else {
      Run<simt::Bf16>(segment, x.rows(), to, stream);
    }
  }

 private:
  template <typename T>
  void Run(const DeltaSegment& segment, cuda::DeviceRows<const T> x, ActivationRows to,
           simt::Stream stream) const {
    cuda::BlockRotationArgs args = args_;
    args.row_begin = static_cast<int32_t>(segment.row_begin);
    const cuda::DeviceRows<T> out = RowsOf<T>(to.Slice(segment.row_begin, segment.row_end));
    simt::Launch(RowsOfSegment(segment), stream, cuda::RotateBlocks<T>, args, x, out);
  }

  const bool exact_;
  const DeviceArray<int32_t> order_;
  const DeviceArray<float> blocks_;
  cuda::BlockRotationArgs args_ = {};
};

class DeviceEmbedding final : public DeviceDelta {
 public:
  explicit DeviceEmbedding(const EmbeddingRows& op)
      : replaces_(true), ids_(op.ids), rows_(ValuesOf(op.rows)) {
    args_.hidden = static_cast<int32_t>(op.rows.cols);
    args_.n = static_cast<int32_t>(op.ids.size());
    args_.ids = ids_.data();
    args_.rows = rows_.data();
  }
  explicit DeviceEmbedding(const EmbeddingLowRank& op)
      : replaces_(false),
        a_(Transposed(op.a)),
        b_(ValuesOf(op.b, op.scale)),
        column_scale_(op.column_scale) {
    args_.hidden = static_cast<int32_t>(op.b.rows);
    args_.n = static_cast<int32_t>(op.a.cols);
    args_.rank = static_cast<int32_t>(op.a.rows);
    args_.a = a_.data();
    args_.b = b_.data();
    args_.column_scale = column_scale_.data();
  }
  Kind kind() const override { return kEmbedding; }
  void TransformEmbedding(const DeltaSegment& segment, std::span<const int32_t> ids, FloatRows rows,
                          simt::Stream stream) const override {
    cuda::EmbeddingArgs args = args_;
    args.tokens = ids.data();
    args.row_begin = static_cast<int32_t>(segment.row_begin);
    args.e = RowsOf(rows);
    simt::Launch(RowsOfSegment(segment), stream,
                 replaces_ ? cuda::ReplaceEmbeddings : cuda::AddLowRankEmbeddings, args);
  }

 private:
  const bool replaces_;
  const DeviceArray<int32_t> ids_;
  const DeviceArray<float> rows_;
  const DeviceArray<float> a_;
  const DeviceArray<float> b_;
  const DeviceArray<float> column_scale_;
  cuda::EmbeddingArgs args_ = {};
};

}  // namespace

std::unique_ptr<DeviceDelta> MakeDeviceSparse(const Sparse& op, bool exact) {
  return std::make_unique<DeviceSparse>(op, exact);
}
std::unique_ptr<DeviceDelta> MakeDeviceRows(const DenseRows& op, bool exact) {
  return std::make_unique<DeviceSparse>(op, exact);
}
std::unique_ptr<DeviceDelta> MakeDeviceKronecker(const Kronecker& op, bool exact) {
  return std::make_unique<DeviceKronecker>(op, exact);
}
std::unique_ptr<DeviceDelta> MakeDeviceRotation(const PairRotation& op) {
  return std::make_unique<DevicePairRotation>(op);
}
std::unique_ptr<DeviceDelta> MakeDeviceRotation(const BlockRotation& op, bool exact) {
  return std::make_unique<DeviceBlockRotation>(op, exact);
}
std::unique_ptr<DeviceDelta> MakeDeviceEmbedding(const EmbeddingRows& op) {
  return std::make_unique<DeviceEmbedding>(op);
}
std::unique_ptr<DeviceDelta> MakeDeviceEmbedding(const EmbeddingLowRank& op) {
  return std::make_unique<DeviceEmbedding>(op);
}

}  // namespace polyad::test
