// Ops that are matrix products: low rank, one bit, dense and bottleneck.

#include <variant>

#include "kernels/cuda/fragment_matrix.h"
#include "kernels/cuda/low_rank.cuh"
#include "kernels/cuda/packed_op.h"
#include "kernels/cuda/packed_weight.h"
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/sign_bits.cuh"
#include "kernels/cuda/site_rows.cuh"

namespace polyad::cuda {
namespace {

std::vector<uint16_t> FragmentsOf(const TensorView& tensor, float scale) {
  const std::vector<float> numbers = NumbersOf(tensor, scale);
  return PackFragments(tensor.rows, tensor.cols, [&](int64_t row, int64_t col) {
    return numbers[static_cast<size_t>(row * tensor.cols + col)];
  });
}

class PackedLowRank final : public SegmentOp<LowRankSegment> {
 public:
  PackedLowRank(Device& device, const LowRank& op, bool exact) : SegmentOp(device, op, exact) {
    segment_.in = static_cast<int32_t>(op.a.cols);
    segment_.rank = static_cast<int32_t>(op.a.rows);
    segment_.out = static_cast<int32_t>(op.b.rows);
    if (exact) {
      segment_.exact_a = memory_.Keep(NumbersOf(op.a));
      segment_.exact_b = memory_.Keep(NumbersOf(op.b, op.scale));
    } else {
      segment_.a = reinterpret_cast<const simt::Bf16*>(memory_.Keep(FragmentsOf(op.a, 1.0f)));
      segment_.b = reinterpret_cast<const simt::Bf16*>(memory_.Keep(FragmentsOf(op.b, op.scale)));
    }
    segment_.inner = memory_.Keep(op.inner);
    segment_.outer = memory_.Keep(op.outer);
  }
  Kind kind() const override { return kLowRank; }

  void Apply(std::span<const DeltaSegment> segments, const InputRows& x, FloatRows y,
             CallQueue& queue) const override {
    const std::vector<LowRankSegment> own = PlacedAll(segments, queue);
    const LowRankPlan plan = PlanLowRank(own, exact());
    LowRankArgs args = {};
    args.segments = queue.Put(plan.segments);
    args.items = queue.Put(plan.items);
    args.y = RowsOf(y);
    if (exact()) {
      args.exact_x = x.Of<float>();
      args.exact_middle = queue.Scratch<float>(plan.middle_elements);
    } else {
      args.x = x.Of<simt::Bf16>();
      args.middle = queue.Scratch<simt::Bf16>(plan.middle_elements);
    }
    LaunchLowRank(plan, args, queue.stream());
  }
};

class PackedSigns final : public SegmentOp<SignSegment> {
 public:
  PackedSigns(Device& device, const SignBits& op, bool exact) : SegmentOp(device, op, exact) {
    segment_.in = static_cast<int32_t>(op.in);
    segment_.out = static_cast<int32_t>(op.out);
    segment_.groups = static_cast<int32_t>(op.groups);
    segment_.one_scale = op.scale.size() == 1 ? 1 : 0;
    if (exact) {
      segment_.exact_bits = memory_.Keep(op.bits, Precision::k1Bit);
    } else {
      segment_.words = memory_.Keep(PackSigns(op.bits, op.out, op.in), Precision::k1Bit);
    }
    segment_.scales = memory_.Keep(op.scale);
  }
  Kind kind() const override { return kSignBits; }

  void Apply(std::span<const DeltaSegment> segments, const InputRows& x, FloatRows y,
             CallQueue& queue) const override {
    const std::vector<SignSegment> own = PlacedAll(segments, queue);
    SignArgs args = {};
    args.segments = queue.Put(own);
    args.y = RowsOf(y);
    if (exact()) {
      args.exact_x = x.Of<float>();
    } else {
      args.x = x.Of<simt::Bf16>();
    }
    for (const std::vector<WorkItem>& items : PlanSigns(own, exact())) {
      args.items = queue.Put(items);
      simt::Launch({static_cast<int64_t>(items.size()), kBlockThreads}, queue.stream(),
                   exact() ? SignProductsExact : SignProducts, args);
    }
  }
};

class PackedDense final : public PackedOp {
 public:
  PackedDense(Device& device, const Dense& op, bool exact)
      : PackedOp(device, op, exact), weight_(memory_, op.delta, exact, op.scale) {}
  Kind kind() const override { return kDense; }
  void Apply(std::span<const DeltaSegment> segments, const InputRows& x, FloatRows y,
             CallQueue& queue) const override {
    std::vector<ProductSegment> own;
    for (const DeltaSegment& segment : segments) {
      const auto& op = static_cast<const PackedDense&>(OpOf(segment));
      own.push_back(Placed(op.weight_.Segment(), segment, queue));
      own.back().sink = ProductSink::kAdd;
      ReadFrom(x, segment.row_begin, own.back());
    }
    RunProducts(own, exact(), y, queue);
  }

 private:
  const PackedTilesOnDevice weight_;
};

// Rows of activations in a call's own memory.
class WorkRows {
 public:
  WorkRows(CallQueue& queue, bool exact, int64_t rows, int64_t cols)
      : stride_(RoundUp(cols, kRowElements)) {
    if (exact) {
      floats_ = {queue.Scratch<float>(rows * stride_), rows, cols, stride_};
    } else {
      halves_ = {queue.Scratch<simt::Bf16>(rows * stride_), rows, cols, stride_};
    }
  }
  void ReadInto(ProductSegment& segment) const {
    segment.x = halves_.data;
    segment.exact_x = floats_.data;
    segment.x_stride = stride_;
  }
  void WriteFrom(ProductSegment& segment) const {
    segment.hidden = halves_.data;
    segment.exact_hidden = floats_.data;
    segment.hidden_stride = stride_;
  }
  const DeviceRows<float>& floats() const { return floats_; }
  const DeviceRows<simt::Bf16>& halves() const { return halves_; }

 private:
  int64_t stride_;
  DeviceRows<float> floats_;
  DeviceRows<simt::Bf16> halves_;
};

class PackedBottleneck final : public PackedOp {
 public:
  PackedBottleneck(Device& device, const Bottleneck& op, bool exact)
      : PackedOp(device, op, exact),
        activation_(op.activation),
        eps_(op.norm.eps),
        norm_weight_(memory_.Keep(op.norm.weight)),
        norm_bias_(memory_.Keep(op.norm.bias)),
        down_(memory_, op.down, exact),
        down_bias_(memory_.Keep(op.down_bias)),
        up_(memory_, op.up, exact),
        up_bias_(memory_.Keep(op.up_bias)),
        factor_(memory_.Keep(op.scale)),
        factor_step_(op.scale.size() > 1 ? 1 : 0) {}
  Kind kind() const override { return kBottleneck; }

  void Apply(std::span<const DeltaSegment> segments, const InputRows& x, FloatRows y,
             CallQueue& queue) const override {
    RunProducts(Ups(segments, x, ProductSink::kAdd, queue), exact(), y, queue);
  }
  void TransformInput(const DeltaSegment& segment, const InputRows& x, ActivationRows to,
                      CallQueue& queue) const override {
    std::vector<ProductSegment> ups =
        Ups(std::span(&segment, 1), x, ProductSink::kActivations, queue);
    ups[0].hidden_stride = to.stride;
    if (exact()) {
      ups[0].exact_hidden = RowsOf<float>(to).data + segment.row_begin * to.stride;
    } else {
      ups[0].hidden = RowsOf<simt::Bf16>(to).data + segment.row_begin * to.stride;
    }
    RunProducts(ups, exact(), {}, queue);
  }

 private:
  // Runs norms and the products into hidden rows. -> the products that are left
  std::vector<ProductSegment> Ups(std::span<const DeltaSegment> segments, const InputRows& x,
                                  ProductSink sink, CallQueue& queue) const {
    std::vector<ProductSegment> downs;
    std::vector<ProductSegment> ups;
    for (const DeltaSegment& segment : segments) {
      const auto& op = static_cast<const PackedBottleneck&>(OpOf(segment));
      const int64_t rows = segment.row_end - segment.row_begin;
      ProductSegment down = Placed(op.down_.Segment(), segment, queue);
      ReadFrom(x, segment.row_begin, down);
      if (op.norm_weight_ != nullptr) {
        const WorkRows normed(queue, exact(), rows, down.weight.in);
        op.Norm(segment, x, normed, queue);
        normed.ReadInto(down);
      }
      const WorkRows hidden(queue, exact(), rows, down.weight.out);
      down.bias = op.down_bias_;
      down.activation = static_cast<int32_t>(op.activation_);
      down.sink = ProductSink::kHidden;
      hidden.WriteFrom(down);
      downs.push_back(down);
      ProductSegment up = Placed(op.up_.Segment(), segment, queue);
      up.bias = op.up_bias_;
      up.factor = op.factor_;
      up.factor_step = op.factor_step_;
      up.sink = sink;
      hidden.ReadInto(up);
      ups.push_back(up);
    }
    RunProducts(downs, exact(), {}, queue);
    return ups;
  }
  void Norm(const DeltaSegment& segment, const InputRows& x, const WorkRows& to,
            CallQueue& queue) const {
    const NormRowArgs args{false, eps_, norm_weight_, norm_bias_, {}};
    const simt::LaunchShape shape{segment.row_end - segment.row_begin, kRowThreads};
    const auto row = static_cast<int32_t>(segment.row_begin);
    if (exact()) {
      simt::Launch(shape, queue.stream(), NormActivations<float>, args, row, x.Of<float>(),
                   to.floats());
    } else {
      simt::Launch(shape, queue.stream(), NormActivations<simt::Bf16>, args, row,
                   x.Of<simt::Bf16>(), to.halves());
    }
  }

  const ActivationKind activation_;
  const float eps_;
  const float* const norm_weight_;
  const float* const norm_bias_;
  const PackedTilesOnDevice down_;
  const float* const down_bias_;
  const PackedTilesOnDevice up_;
  const float* const up_bias_;
  const float* const factor_;
  const int32_t factor_step_;
};

}  // namespace

std::unique_ptr<PackedOp> PackProductOp(Device& device, const DeltaOp& op, bool exact) {
  if (const auto* own = std::get_if<LowRank>(&op)) {
    return std::make_unique<PackedLowRank>(device, *own, exact);
  }
  if (const auto* own = std::get_if<SignBits>(&op)) {
    return std::make_unique<PackedSigns>(device, *own, exact);
  }
  if (const auto* own = std::get_if<Dense>(&op)) {
    return std::make_unique<PackedDense>(device, *own, exact);
  }
  if (const auto* own = std::get_if<Bottleneck>(&op)) {
    return std::make_unique<PackedBottleneck>(device, *own, exact);
  }
  return nullptr;
}

}  // namespace polyad::cuda
