#include "tests/kernels/cuda/emulated_deltas.h"

#include "kernels/api/check.h"
#include "kernels/cuda/fragment_matrix.h"
#include "kernels/cuda/low_rank.cuh"
#include "kernels/cuda/sign_bits.cuh"
#include "tests/kernels/cuda/emulated_products.h"
#include "tests/kernels/cuda/emulated_sites.h"

namespace polyad::test {
namespace {

std::vector<uint16_t> Fragments(const TensorView& tensor, float scale) {
  return cuda::PackFragments(tensor.rows, tensor.cols, [&](int64_t row, int64_t col) {
    return scale * ElementOf(tensor, row, col);
  });
}

class DeviceLowRank final : public DeviceDelta {
 public:
  DeviceLowRank(const LowRank& op, bool exact)
      : exact_(exact),
        a_(Fragments(op.a, 1.0f)),
        b_(Fragments(op.b, op.scale)),
        exact_a_(ValuesOf(op.a)),
        exact_b_(ValuesOf(op.b, op.scale)),
        inner_(op.inner),
        outer_(op.outer) {
    segment_.in = static_cast<int32_t>(op.a.cols);
    segment_.rank = static_cast<int32_t>(op.a.rows);
    segment_.out = static_cast<int32_t>(op.b.rows);
    segment_.a = reinterpret_cast<const simt::Bf16*>(a_.data());
    segment_.b = reinterpret_cast<const simt::Bf16*>(b_.data());
    segment_.exact_a = exact_a_.data();
    segment_.exact_b = exact_b_.data();
    segment_.inner = inner_.data();
    segment_.outer = outer_.data();
  }
  Kind kind() const override { return kLowRank; }

  void Apply(std::span<const DeviceDelta* const> deltas, std::span<const DeltaSegment> segments,
             const DeviceActivations& x, FloatRows y, simt::Stream stream) const override {
    std::vector<cuda::LowRankSegment> own;
    for (size_t i = 0; i < segments.size(); ++i) {
      own.push_back(Placed(static_cast<const DeviceLowRank*>(deltas[i])->segment_, segments[i]));
    }
    const cuda::LowRankPlan plan = cuda::PlanLowRank(own, exact_);
    const auto middle_words = static_cast<size_t>(plan.middle_elements) / 4 + 1;
    std::vector<simt::Words4> middle(middle_words);
    cuda::LowRankArgs args = {};
    args.segments = plan.segments.data();
    args.items = plan.items.data();
    args.x = x.rows();
    args.exact_x = x.exact_rows();
    args.middle = reinterpret_cast<simt::Bf16*>(middle.data());
    args.exact_middle = reinterpret_cast<float*>(middle.data());
    args.y = {y.data, y.rows, y.cols, y.stride};
    cuda::LaunchLowRank(plan, args, stream);
  }

 private:
  const bool exact_;
  const DeviceArray<uint16_t> a_;
  const DeviceArray<uint16_t> b_;
  const DeviceArray<float> exact_a_;
  const DeviceArray<float> exact_b_;
  const DeviceArray<float> inner_;
  const DeviceArray<float> outer_;
  cuda::LowRankSegment segment_;
};

class DeviceSigns final : public DeviceDelta {
 public:
  DeviceSigns(const SignBits& op, bool exact)
      : exact_(exact),
        words_(cuda::PackSigns(op.bits, op.out, op.in)),
        bits_(op.bits.begin(), op.bits.end()),
        scales_(op.scale.begin(), op.scale.end()) {
    segment_.in = static_cast<int32_t>(op.in);
    segment_.out = static_cast<int32_t>(op.out);
    segment_.groups = static_cast<int32_t>(op.groups);
    segment_.one_scale = op.scale.size() == 1 ? 1 : 0;
    segment_.words = words_.data();
    segment_.exact_bits = bits_.data();
    segment_.scales = scales_.data();
  }
  Kind kind() const override { return kSignBits; }

  void Apply(std::span<const DeviceDelta* const> deltas, std::span<const DeltaSegment> segments,
             const DeviceActivations& x, FloatRows y, simt::Stream stream) const override {
    std::vector<cuda::SignSegment> own;
    for (size_t i = 0; i < segments.size(); ++i) {
      own.push_back(Placed(static_cast<const DeviceSigns*>(deltas[i])->segment_, segments[i]));
    }
    for (const std::vector<cuda::WorkItem>& items : cuda::PlanSigns(own, exact_)) {
      const cuda::SignArgs args{
          own.data(), items.data(), x.rows(), x.exact_rows(), {y.data, y.rows, y.cols, y.stride}};
      simt::Launch({static_cast<int64_t>(items.size()), cuda::kBlockThreads}, stream,
                   exact_ ? cuda::SignProductsExact : cuda::SignProducts, args);
    }
  }

 private:
  const bool exact_;
  const std::vector<uint32_t> words_;
  const std::vector<uint32_t> bits_;
  const std::vector<float> scales_;
  cuda::SignSegment segment_;
};

// A bias, or a scale of inputs or outputs.
class DeviceVector final : public DeviceDelta {
 public:
  DeviceVector(Kind kind, std::span<const float> values)
      : kind_(kind), values_(values.begin(), values.end()) {}
  Kind kind() const override { return kind_; }
  std::span<const float> vector() const override { return values_; }

  void TransformInput(const DeltaSegment& segment, const DeviceActivations&, ActivationRows to,
                      simt::Stream stream) const override {
    if (to.dtype == DType::kF32) {
      Multiply(segment, RowsOf<float>(to), stream);
    } else {
      Multiply(segment, RowsOf<simt::Bf16>(to), stream);
    }
  }
  void TransformOutput(const DeltaSegment& segment, FloatRows y,
                       simt::Stream stream) const override {
    Multiply(segment, RowsOf(y), stream);
  }

  // In order, each in a launch of its own: segments may overlap.
  void Apply(std::span<const DeviceDelta* const> deltas, std::span<const DeltaSegment> segments,
             const DeviceActivations&, FloatRows y, simt::Stream stream) const override {
    for (size_t i = 0; i < segments.size(); ++i) {
      VectorPlan plan;
      plan.Add(segments[i], deltas[i]->vector());
      plan.Run(cuda::VectorStep::kAdd, cuda::DeviceRows<float>{y.data, y.rows, y.cols, y.stride},
               stream);
    }
  }

 private:
  template <typename T>
  void Multiply(const DeltaSegment& segment, cuda::DeviceRows<T> rows, simt::Stream stream) const {
    VectorPlan plan;
    plan.Add(segment, values_);
    plan.Run(cuda::VectorStep::kMultiply, rows, stream);
  }

  const Kind kind_;
  const std::vector<float> values_;
};

struct Maker {
  bool exact;

  std::unique_ptr<DeviceDelta> operator()(const SignBits& op) const {
    return std::make_unique<DeviceSigns>(op, exact);
  }
  std::unique_ptr<DeviceDelta> operator()(const Bias& op) const {
    return std::make_unique<DeviceVector>(DeviceDelta::kBias, op.values);
  }
  std::unique_ptr<DeviceDelta> operator()(const InputScale& op) const {
    return std::make_unique<DeviceVector>(DeviceDelta::kScale, op.values);
  }
  std::unique_ptr<DeviceDelta> operator()(const OutputScale& op) const {
    return std::make_unique<DeviceVector>(DeviceDelta::kScale, op.values);
  }

  std::unique_ptr<DeviceDelta> operator()(const LowRank& op) const {
    return std::make_unique<DeviceLowRank>(op, exact);
  }
  std::unique_ptr<DeviceDelta> operator()(const Dense& op) const {
    return MakeDeviceDense(op, exact);
  }
  std::unique_ptr<DeviceDelta> operator()(const Bottleneck& op) const {
    return MakeDeviceBottleneck(op, exact);
  }
  std::unique_ptr<DeviceDelta> operator()(const DenseRows& op) const {
    return MakeDeviceRows(op, exact);
  }
  std::unique_ptr<DeviceDelta> operator()(const Sparse& op) const {
    return MakeDeviceSparse(op, exact);
  }
  std::unique_ptr<DeviceDelta> operator()(const Kronecker& op) const {
    return MakeDeviceKronecker(op, exact);
  }
  std::unique_ptr<DeviceDelta> operator()(const BlockRotation& op) const {
    return MakeDeviceRotation(op, exact);
  }
  std::unique_ptr<DeviceDelta> operator()(const PairRotation& op) const {
    return MakeDeviceRotation(op);
  }
  std::unique_ptr<DeviceDelta> operator()(const EmbeddingRows& op) const {
    return MakeDeviceEmbedding(op);
  }
  std::unique_ptr<DeviceDelta> operator()(const EmbeddingLowRank& op) const {
    return MakeDeviceEmbedding(op);
  }
};

}  // namespace

void DeviceDelta::Apply(std::span<const DeviceDelta* const>, std::span<const DeltaSegment>,
                        const DeviceActivations&, FloatRows, simt::Stream) const {
  KERNEL_CHECK(false, "Apply takes deltas and bottlenecks only");
}
void DeviceDelta::TransformInput(const DeltaSegment&, const DeviceActivations&, ActivationRows,
                                 simt::Stream) const {
  KERNEL_CHECK(false, "an input op");
}
void DeviceDelta::TransformOutput(const DeltaSegment&, FloatRows, simt::Stream) const {
  KERNEL_CHECK(false, "an output op");
}
void DeviceDelta::TransformEmbedding(const DeltaSegment&, std::span<const int32_t>, FloatRows,
                                     simt::Stream) const {
  KERNEL_CHECK(false, "an embedding op");
}

void VectorPlan::Add(const DeltaSegment& segment, std::span<const float> values) {
  const auto index = static_cast<int32_t>(segments_.size());
  segments_.push_back({static_cast<int32_t>(segment.row_begin),
                       static_cast<int32_t>(segment.row_end), static_cast<int32_t>(values.size()),
                       static_cast<int32_t>(segment.y_column), values.data(), segment.scale,
                       segment.row_scale});
  for (int64_t row = segment.row_begin; row < segment.row_end; ++row) {
    items_.push_back({index, static_cast<int32_t>(row)});
  }
}

std::unique_ptr<DeviceDelta> MakeDeviceDelta(const DeltaOp& op, bool exact) {
  return std::visit(Maker{exact}, op);
}

}  // namespace polyad::test
