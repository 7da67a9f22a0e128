#include "kernels/cuda/packed_weight.h"

#include <algorithm>

#include "kernels/api/check.h"
#include "kernels/cuda/product.cuh"

namespace polyad::cuda {
namespace {

Precision PrecisionOf(WeightFormat format) {
  if (format == WeightFormat::kBf16) return Precision::kBF16;
  return CodeBits(format) == 4 ? Precision::k4Bit : Precision::k8Bit;
}

}  // namespace

PackedTilesOnDevice::PackedTilesOnDevice(DeviceMemory& memory, const TensorView& weight, bool exact,
                                         float scale) {
  if (exact) {
    view_.out = static_cast<int32_t>(weight.rows);
    view_.in = static_cast<int32_t>(weight.cols);
    exact_ = memory.Keep(NumbersOf(weight, scale));
    return;
  }
  const PackedTiles packed = PackTiles(weight, scale);
  view_ = packed.shape;
  view_.tiles = memory.Keep(packed.tiles, PrecisionOf(view_.format));
  view_.scales = memory.Keep(packed.scales);
  view_.offsets = memory.Keep(packed.offsets);
  view_.levels = reinterpret_cast<const simt::Bf16*>(memory.Keep(packed.levels));
}

ProductSegment PackedTilesOnDevice::Segment() const {
  ProductSegment segment;
  segment.out = view_.out;
  segment.weight = view_;
  segment.exact_weight = exact_;
  return segment;
}

void ReadFrom(const InputRows& x, int64_t row, ProductSegment& segment) {
  segment.x_stride = x.stride();
  if (x.exact()) {
    segment.exact_x = x.Of<float>().data + row * x.stride();
  } else {
    segment.x = x.Of<simt::Bf16>().data + row * x.stride();
  }
}

void RunProducts(std::span<const ProductSegment> segments, bool exact, FloatRows y,
                 CallQueue& queue) {
  const ProductPlan plan = PlanProducts(segments, exact);
  const ProductArgs args{queue.Put(segments), queue.Put(plan.items), RowsOf(y)};
  LaunchProducts(plan, args, queue.stream());
}

absl::Status NoMemoryForWeight() {
  return absl::ResourceExhaustedError("the device has no memory left for a weight matrix");
}

TiledMatrix::TiledMatrix(Device& device, std::span<const TensorView> parts, bool exact)
    : exact_(exact), memory_(device), in_(parts[0].cols) {
  for (const TensorView& part : parts) {
    parts_.emplace_back(memory_, part, exact);
    out_ += part.rows;
  }
}

absl::StatusOr<std::unique_ptr<TiledMatrix>> TiledMatrix::Pack(Device& device,
                                                               std::span<const TensorView> parts,
                                                               bool exact) {
  std::unique_ptr<TiledMatrix> packed(new TiledMatrix(device, parts, exact));
  if (packed->memory_.refused()) return NoMemoryForWeight();
  return packed;
}

void TiledMatrix::Gemm(const InputRows& x, const float* bias, bool accumulate, FloatRows y,
                       CallQueue& queue) const {
  std::vector<ProductSegment> segments;
  int32_t first = 0;
  for (const PackedTilesOnDevice& part : parts_) {
    ProductSegment segment = part.Segment();
    segment.row_end = static_cast<int32_t>(y.rows);
    segment.y_column = first;
    segment.bias = bias == nullptr ? nullptr : bias + first;
    segment.sink = accumulate ? ProductSink::kAdd : ProductSink::kSet;
    ReadFrom(x, 0, segment);
    segments.push_back(segment);
    first += segment.out;
  }
  RunProducts(segments, exact_, y, queue);
}

void TiledMatrix::ProductOfRows(int64_t first_row, const InputRows& x, FloatRows y,
                                CallQueue& queue) const {
  std::vector<ProductSegment> segments;
  int64_t part_begin = 0;
  for (const PackedTilesOnDevice& part : parts_) {
    ProductSegment segment = part.Segment();
    const int64_t begin = std::max(first_row, part_begin);
    const int64_t end = std::min(first_row + y.cols, part_begin + segment.out);
    segment.row_end = static_cast<int32_t>(y.rows);
    segment.first_out = static_cast<int32_t>(begin - part_begin);
    part_begin += segment.out;
    if (begin >= end) continue;
    segment.out = static_cast<int32_t>(end - begin);
    segment.y_column = static_cast<int32_t>(begin - first_row);
    ReadFrom(x, 0, segment);
    segments.push_back(segment);
  }
  RunProducts(segments, exact_, y, queue);
}

void TiledMatrix::Embed(const int32_t* ids, bool adds, FloatRows out, CallQueue& queue) const {
  KERNEL_CHECK(parts_.size() == 1, "a table is one matrix");
  const EmbedArgs args{parts_[0].view(), parts_[0].exact(), ids, adds, RowsOf(out)};
  simt::Launch({out.rows, kRowThreads}, queue.stream(), EmbedRows, args);
}

}  // namespace polyad::cuda
