#include "kernels/cuda/plain_matrix.h"

#include <algorithm>
#include <vector>

#include "kernels/api/check.h"
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/site_rows.cuh"

namespace polyad::cuda {
namespace {

// Of products that go through memory of the call, so that they fit into the arena.
constexpr int64_t kThroughBytes = int64_t{16} << 20;

bool LiesAsLibraryWrites(const FloatRows& y) {
  return y.stride % 4 == 0 && reinterpret_cast<uintptr_t>(y.data) % 16 == 0;
}

std::vector<uint16_t> PaddedRows(std::span<const TensorView> parts, const PlainShape& shape) {
  std::vector<uint16_t> rows(static_cast<size_t>(shape.out * shape.in), 0);
  uint16_t* to = rows.data();
  for (const TensorView& part : parts) {
    for (int64_t row = 0; row < part.rows; ++row, to += shape.in) RoundRow(part, row, to);
  }
  return rows;
}

}  // namespace

bool PlainMatrix::Takes(std::span<const TensorView> parts) {
  return std::all_of(parts.begin(), parts.end(), [](const TensorView& part) {
    return part.dtype != DType::kGrouped && InfoOf(part.dtype).block_elements == 1;
  });
}

PlainShape PlainMatrix::ShapeOf(std::span<const TensorView> parts) {
  int64_t out = 0;
  for (const TensorView& part : parts) out += part.rows;
  return {RoundUp(out, kPlainElements), RoundUp(parts[0].cols, kPlainElements)};
}

PlainMatrix::PlainMatrix(Device& device, std::span<const TensorView> parts,
                         const PlainProducts& products)
    : products_(products), memory_(device), in_(parts[0].cols), shape_(ShapeOf(parts)) {
  for (const TensorView& part : parts) out_ += part.rows;
  rows_ = reinterpret_cast<const simt::Bf16*>(memory_.Keep(PaddedRows(parts, shape_)));
}

absl::StatusOr<std::unique_ptr<PlainMatrix>> PlainMatrix::Pack(Device& device,
                                                               std::span<const TensorView> parts,
                                                               const PlainProducts& products) {
  std::unique_ptr<PlainMatrix> packed(new PlainMatrix(device, parts, products));
  if (packed->memory_.refused()) return NoMemoryForWeight();
  return packed;
}

MatmulCall PlainMatrix::CallOf(const InputRows& x, int64_t rows) const {
  MatmulCall call;
  call.shape = shape_;
  call.weight = rows_;
  call.x = x.Of<simt::Bf16>().data;
  call.x_stride = x.stride();
  call.rows = rows;
  return call;
}

void PlainMatrix::Gemm(const InputRows& x, const float* bias, bool accumulate, FloatRows y,
                       CallQueue& queue) const {
  if (y.rows == 0) return;
  if (bias != nullptr) {
    const DeviceRows<const float> same{bias, y.rows, y.cols, 0};
    simt::Launch({y.rows, kRowThreads}, queue.stream(), MoveRows<float, float>,
                 accumulate ? Move::kAdd : Move::kCopy, same, RowsOf(y));
    accumulate = true;
  }
  if (out_ != shape_.out || !LiesAsLibraryWrites(y)) {
    MultiplyThrough(0, x, accumulate, y, queue);
    return;
  }
  MatmulCall call = CallOf(x, y.rows);
  call.y = y.data;
  call.y_stride = y.stride;
  call.accumulate = accumulate;
  products_.Multiply(call, algorithm_, queue.LibraryStream());
}

void PlainMatrix::MultiplyThrough(int64_t first_out, const InputRows& x, bool accumulate,
                                  FloatRows y, CallQueue& queue) const {
  const int64_t row_bytes = shape_.out * static_cast<int64_t>(sizeof(float));
  const int64_t most = std::clamp<int64_t>(kThroughBytes / row_bytes, 1, y.rows);
  float* through = queue.Scratch<float>(most * shape_.out);
  for (int64_t row = 0; row < y.rows; row += most) {
    const int64_t rows = std::min(most, y.rows - row);
    MatmulCall call = CallOf(x, rows);
    call.x += row * call.x_stride;
    call.y = through;
    call.y_stride = shape_.out;
    products_.Multiply(call, algorithm_, queue.LibraryStream());
    const DeviceRows<const float> from{through + first_out, rows, y.cols, shape_.out};
    simt::Launch({rows, kRowThreads}, queue.stream(), MoveRows<float, float>,
                 accumulate ? Move::kAdd : Move::kCopy, from, RowsOf(y.Slice(row, row + rows)));
  }
}

void PlainMatrix::ProductOfRows(int64_t first_row, const InputRows& x, FloatRows y,
                                CallQueue& queue) const {
  if (y.rows > 0) MultiplyThrough(first_row, x, /*accumulate=*/false, y, queue);
}

void PlainMatrix::Embed(const int32_t* ids, bool adds, FloatRows out, CallQueue& queue) const {
  EmbedArgs args{{}, nullptr, ids, adds, RowsOf(out)};
  args.plain_table = rows_;
  args.plain_stride = shape_.in;
  simt::Launch({out.rows, kRowThreads}, queue.stream(), EmbedRows, args);
}

}  // namespace polyad::cuda
