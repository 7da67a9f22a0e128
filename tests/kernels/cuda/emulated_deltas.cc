#include "tests/kernels/cuda/emulated_deltas.h"

#include <cstring>

#include "kernels/cuda/fragment_matrix.h"
#include "kernels/cuda/low_rank.cuh"
#include "kernels/cuda/sign_bits.cuh"
#include "kernels/reference/element.h"

namespace polyad::test {
namespace {

// Bits or numbers in memory aligned as device memory is.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::span<const T> values)
      : words_((values.size_bytes() + sizeof(simt::Words4) - 1) / sizeof(simt::Words4)),
        size_(values.size()) {
    if (size_ > 0) std::memcpy(words_.data(), values.data(), values.size_bytes());
  }
  const T* data() const { return size_ == 0 ? nullptr : reinterpret_cast<const T*>(words_.data()); }

 private:
  std::vector<simt::Words4> words_;
  size_t size_;
};

std::vector<float> Values(const TensorView& tensor, float scale) {
  std::vector<float> values;
  for (int64_t i = 0; i < tensor.rows * tensor.cols; ++i) {
    values.push_back(scale * ElementOf(tensor, i / tensor.cols, i % tensor.cols));
  }
  return values;
}

std::vector<uint16_t> Fragments(const TensorView& tensor, float scale) {
  return cuda::PackFragments(tensor.rows, tensor.cols, [&](int64_t row, int64_t col) {
    return scale * ElementOf(tensor, row, col);
  });
}

// An op's segment at the rows and columns that a launch gives it.
template <typename Segment>
Segment Placed(Segment segment, const DeltaSegment& at) {
  segment.row_begin = static_cast<int32_t>(at.row_begin);
  segment.row_end = static_cast<int32_t>(at.row_end);
  segment.y_column = static_cast<int32_t>(at.y_column);
  segment.scale = at.scale;
  segment.row_scale = at.row_scale;
  return segment;
}

class DeviceLowRank final : public DeviceDelta {
 public:
  DeviceLowRank(const LowRank& op, bool exact)
      : exact_(exact),
        a_(Fragments(op.a, 1.0f)),
        b_(Fragments(op.b, op.scale)),
        exact_a_(Values(op.a, 1.0f)),
        exact_b_(Values(op.b, op.scale)),
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
             const DeviceInput& x, FloatRows y, simt::Stream stream) const override {
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
             const DeviceInput& x, FloatRows y, simt::Stream stream) const override {
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

  // In order, each in a launch of its own: segments may overlap.
  void Apply(std::span<const DeviceDelta* const> deltas, std::span<const DeltaSegment> segments,
             const DeviceInput&, FloatRows y, simt::Stream stream) const override {
    for (size_t i = 0; i < segments.size(); ++i) {
      VectorPlan plan;
      plan.Add(segments[i], deltas[i]->vector());
      plan.Run(cuda::VectorStep::kAdd, cuda::DeviceRows<float>{y.data, y.rows, y.cols, y.stride},
               stream);
    }
  }

 private:
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
  template <typename Op>
  std::unique_ptr<DeviceDelta> operator()(const Op&) const {
    return nullptr;
  }
};

}  // namespace

float ElementOf(const TensorView& tensor, int64_t row, int64_t col) {
  return static_cast<float>(ref::ReadElement(tensor, row, col));
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

DeviceInput::DeviceInput(ActivationRows x)
    : rows_(x.rows), cols_(x.cols), stride_(cuda::RoundUp(x.cols, cuda::kRowElements)) {
  const bool exact = x.dtype == DType::kF32;
  const auto count = static_cast<size_t>(rows_ * stride_);
  std::vector<simt::Words4>& words = exact ? exact_words_ : words_;
  words.resize(count / (exact ? 4 : 8));
  const int64_t bytes = InfoOf(x.dtype).block_bytes;
  for (int64_t row = 0; row < rows_; ++row) {
    std::memcpy(reinterpret_cast<char*>(words.data()) + row * stride_ * bytes,
                static_cast<const char*>(x.data) + row * x.stride * bytes,
                static_cast<size_t>(cols_ * bytes));
  }
}

cuda::DeviceRows<const simt::Bf16> DeviceInput::rows() const {
  return {reinterpret_cast<const simt::Bf16*>(words_.data()), rows_, cols_, stride_};
}

cuda::DeviceRows<const float> DeviceInput::exact_rows() const {
  return {reinterpret_cast<const float*>(exact_words_.data()), rows_, cols_, stride_};
}

std::unique_ptr<DeviceDelta> MakeDeviceDelta(const DeltaOp& op, bool exact) {
  return std::visit(Maker{exact}, op);
}

}  // namespace polyad::test
