#include "tests/kernels/cuda/emulated_products.h"

#include <algorithm>

#include "kernels/api/check.h"
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/site_rows.cuh"

namespace polyad::test {
namespace {

void RunProducts(std::span<const cuda::ProductSegment> segments, bool exact, FloatRows y,
                 simt::Stream stream) {
  const cuda::ProductPlan plan = cuda::PlanProducts(segments, exact);
  cuda::LaunchProducts(plan, {segments.data(), plan.items.data(), RowsOf(y)}, stream);
}

// The segment reads rows of `x` from `row` on.
void ReadFrom(const DeviceActivations& x, int64_t row, cuda::ProductSegment& segment) {
  segment.x_stride = x.stride();
  if (x.rows().data != nullptr) segment.x = x.rows().data + row * x.stride();
  if (x.exact_rows().data != nullptr) segment.exact_x = x.exact_rows().data + row * x.stride();
}

class DeviceDense final : public DeviceDelta {
 public:
  DeviceDense(const Dense& op, bool exact) : exact_(exact), weight_(op.delta, exact, op.scale) {}
  Kind kind() const override { return kDense; }
  void Apply(std::span<const DeviceDelta* const> deltas, std::span<const DeltaSegment> segments,
             const DeviceActivations& x, FloatRows y, simt::Stream stream) const override {
    std::vector<cuda::ProductSegment> own;
    for (size_t i = 0; i < segments.size(); ++i) {
      own.push_back(
          Placed(static_cast<const DeviceDense*>(deltas[i])->weight_.Segment(), segments[i]));
      own.back().sink = cuda::ProductSink::kAdd;
      ReadFrom(x, segments[i].row_begin, own.back());
    }
    RunProducts(own, exact_, y, stream);
  }

 private:
  const bool exact_;
  const DeviceTiles weight_;
};

class DeviceBottleneck final : public DeviceDelta {
 public:
  DeviceBottleneck(const Bottleneck& op, bool exact)
      : exact_(exact),
        activation_(op.activation),
        eps_(op.norm.eps),
        norm_weight_(op.norm.weight),
        norm_bias_(op.norm.bias),
        down_(op.down, exact),
        down_bias_(op.down_bias),
        up_(op.up, exact),
        up_bias_(op.up_bias),
        factor_(op.scale),
        factor_step_(op.scale.size() > 1 ? 1 : 0) {}
  Kind kind() const override { return kBottleneck; }

  void Apply(std::span<const DeviceDelta* const> deltas, std::span<const DeltaSegment> segments,
             const DeviceActivations& x, FloatRows y, simt::Stream stream) const override {
    Work work(exact_, deltas, segments, x, stream);
    RunProducts(work.Ups(cuda::ProductSink::kAdd), exact_, y, stream);
  }
  void TransformInput(const DeltaSegment& segment, const DeviceActivations& x, ActivationRows to,
                      simt::Stream stream) const override {
    const DeviceDelta* self = this;
    Work work(exact_, std::span(&self, 1), std::span(&segment, 1), x, stream);
    std::vector<cuda::ProductSegment> ups = work.Ups(cuda::ProductSink::kActivations);
    ups[0].hidden_stride = to.stride;
    if (exact_) {
      ups[0].exact_hidden = RowsOf<float>(to).data + segment.row_begin * to.stride;
    } else {
      ups[0].hidden = RowsOf<simt::Bf16>(to).data + segment.row_begin * to.stride;
    }
    RunProducts(ups, exact_, {}, stream);
  }

 private:
  // Norms and the products into hidden rows of all segments; what the second products read.
  class Work {
   public:
    Work(bool exact, std::span<const DeviceDelta* const> deltas,
         std::span<const DeltaSegment> segments, const DeviceActivations& x, simt::Stream stream)
        : deltas_(deltas), segments_(segments) {
      std::vector<cuda::ProductSegment> downs;
      for (size_t i = 0; i < segments.size(); ++i) {
        const DeviceBottleneck& op = Op(i);
        const int64_t rows = segments[i].row_end - segments[i].row_begin;
        downs.push_back(Placed(op.down_.Segment(), segments[i]));
        cuda::ProductSegment& down = downs.back();
        ReadFrom(x, segments[i].row_begin, down);
        if (op.norm_weight_.data() != nullptr) {
          normed_.push_back(std::make_unique<DeviceActivations>(exact, rows, down.weight.in));
          op.Norm(segments[i], x, *normed_.back(), stream);
          ReadFrom(*normed_.back(), 0, down);
        }
        hidden_.push_back(std::make_unique<DeviceActivations>(exact, rows, down.weight.out));
        down.bias = op.down_bias_.data();
        down.activation = static_cast<int32_t>(op.activation_);
        down.sink = cuda::ProductSink::kHidden;
        down.hidden = hidden_.back()->rows().data;
        down.exact_hidden = hidden_.back()->exact_rows().data;
        down.hidden_stride = hidden_.back()->stride();
      }
      RunProducts(downs, exact, {}, stream);
    }
    std::vector<cuda::ProductSegment> Ups(cuda::ProductSink sink) const {
      std::vector<cuda::ProductSegment> ups;
      for (size_t i = 0; i < segments_.size(); ++i) {
        const DeviceBottleneck& op = Op(i);
        ups.push_back(Placed(op.up_.Segment(), segments_[i]));
        ups.back().bias = op.up_bias_.data();
        ups.back().factor = op.factor_.data();
        ups.back().factor_step = op.factor_step_;
        ups.back().sink = sink;
        ReadFrom(*hidden_[i], 0, ups.back());
      }
      return ups;
    }

   private:
    const DeviceBottleneck& Op(size_t i) const {
      return *static_cast<const DeviceBottleneck*>(deltas_[i]);
    }
    const std::span<const DeviceDelta* const> deltas_;
    const std::span<const DeltaSegment> segments_;
    std::vector<std::unique_ptr<DeviceActivations>> normed_;
    std::vector<std::unique_ptr<DeviceActivations>> hidden_;
  };

  void Norm(const DeltaSegment& segment, const DeviceActivations& x, DeviceActivations& to,
            simt::Stream stream) const {
    const cuda::NormRowArgs args{false, eps_, norm_weight_.data(), norm_bias_.data(), {}};
    const simt::LaunchShape shape{segment.row_end - segment.row_begin, cuda::kRowThreads};
    const auto row = static_cast<int32_t>(segment.row_begin);
    if (exact_) {
      simt::Launch(shape, stream, cuda::NormActivations<float>, args, row, x.exact_rows(),
                   to.exact_rows());
    } else {
      simt::Launch(shape, stream, cuda::NormActivations<simt::Bf16>, args, row, x.rows(),
                   to.rows());
    }
  }

  const bool exact_;
  const ActivationKind activation_;
  const float eps_;
  const DeviceArray<float> norm_weight_;
  const DeviceArray<float> norm_bias_;
  const DeviceTiles down_;
  const DeviceArray<float> down_bias_;
  const DeviceTiles up_;
  const DeviceArray<float> up_bias_;
  const DeviceArray<float> factor_;
  const int32_t factor_step_;
};

}  // namespace

DeviceTiles::DeviceTiles(const TensorView& weight, bool exact, float scale) {
  const cuda::PackedTiles packed = cuda::PackTiles(weight, scale);
  tiles_ = DeviceArray<uint32_t>(packed.tiles);
  scales_ = DeviceArray<float>(packed.scales);
  offsets_ = DeviceArray<float>(packed.offsets);
  levels_ = DeviceArray<uint16_t>(packed.levels);
  if (exact) exact_ = DeviceArray<float>(ValuesOf(weight, scale));
  view_ = packed.shape;
  view_.tiles = tiles_.data();
  view_.scales = scales_.data();
  view_.offsets = offsets_.data();
  view_.levels = reinterpret_cast<const simt::Bf16*>(levels_.data());
}

cuda::ProductSegment DeviceTiles::Segment() const {
  cuda::ProductSegment segment;
  segment.out = view_.out;
  segment.weight = view_;
  segment.exact_weight = exact_.data();
  return segment;
}

DeviceMatrix::DeviceMatrix(std::span<const TensorView> parts, bool exact)
    : exact_(exact), in_(parts[0].cols) {
  for (const TensorView& part : parts) {
    parts_.push_back(std::make_unique<DeviceTiles>(part, exact));
    out_ += part.rows;
  }
}

void DeviceMatrix::Gemm(const GemmArgs& args, ActivationRows x, FloatRows y,
                        simt::Stream stream) const {
  const DeviceActivations input(x);
  std::vector<cuda::ProductSegment> segments;
  int32_t first = 0;
  for (const auto& part : parts_) {
    cuda::ProductSegment segment = part->Segment();
    segment.row_end = static_cast<int32_t>(x.rows);
    segment.y_column = first;
    segment.bias = args.bias == nullptr ? nullptr : args.bias + first;
    segment.sink = args.accumulate ? cuda::ProductSink::kAdd : cuda::ProductSink::kSet;
    ReadFrom(input, 0, segment);
    segments.push_back(segment);
    first += segment.out;
  }
  RunProducts(segments, exact_, y, stream);
}

void DeviceMatrix::ProductOfRows(int64_t first_row, FloatRows x, FloatRows y,
                                 simt::Stream stream) const {
  DeviceActivations input(exact_, x.rows, x.cols);
  const simt::LaunchShape shape{x.rows, cuda::kRowThreads};
  if (exact_) {
    simt::Launch(shape, stream, cuda::MoveRows<float, float>, cuda::Move::kCopy, ConstRowsOf(x),
                 input.exact_rows());
  } else {
    simt::Launch(shape, stream, cuda::MoveRows<float, simt::Bf16>, cuda::Move::kCopy,
                 ConstRowsOf(x), input.rows());
  }
  std::vector<cuda::ProductSegment> segments;
  int64_t first = 0;
  for (const auto& part : parts_) {
    cuda::ProductSegment segment = part->Segment();
    const int64_t begin = std::max(first_row, first);
    const int64_t end = std::min(first_row + y.cols, first + segment.out);
    const int64_t part_first = first;
    first += segment.out;
    if (begin >= end) continue;
    segment.row_end = static_cast<int32_t>(x.rows);
    segment.first_out = static_cast<int32_t>(begin - part_first);
    segment.out = static_cast<int32_t>(end - begin);
    segment.y_column = static_cast<int32_t>(begin - first_row);
    ReadFrom(input, 0, segment);
    segments.push_back(segment);
  }
  RunProducts(segments, exact_, y, stream);
}

void DeviceMatrix::Embed(std::span<const int32_t> ids, bool adds, FloatRows out,
                         simt::Stream stream) const {
  KERNEL_CHECK(parts_.size() == 1, "a table is one matrix");
  const cuda::EmbedArgs args{parts_[0]->view(), parts_[0]->exact(), ids.data(), adds, RowsOf(out)};
  simt::Launch({static_cast<int64_t>(ids.size()), cuda::kRowThreads}, stream, cuda::EmbedRows,
               args);
}

std::unique_ptr<DeviceDelta> MakeDeviceDense(const Dense& op, bool exact) {
  return std::make_unique<DeviceDense>(op, exact);
}
std::unique_ptr<DeviceDelta> MakeDeviceBottleneck(const Bottleneck& op, bool exact) {
  return std::make_unique<DeviceBottleneck>(op, exact);
}

}  // namespace polyad::test
