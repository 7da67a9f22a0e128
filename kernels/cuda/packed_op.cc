#include "kernels/cuda/packed_op.h"

#include <variant>

#include "absl/strings/str_format.h"
#include "kernels/api/check.h"
#include "kernels/api/delta_check.h"
#include "kernels/cuda/site_rows.cuh"

namespace polyad::cuda {
namespace {

// Kernels read whole tiles of rows that lie as device_rows.h says.
bool LiesAsKernelsRead(const ActivationRows& x) {
  return x.cols % kRowElements == 0 && x.stride % 8 == 0 &&
         reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
}

template <typename T>
T* PaddedCopy(CallQueue& queue, const ActivationRows& x, int64_t stride) {
  T* memory = queue.Scratch<T>(x.rows * stride);
  const DeviceRows<T> to{memory, x.rows, x.cols, stride};
  simt::Launch({x.rows, kRowThreads}, queue.stream(), MoveRows<T, T>, Move::kCopy,
               ConstRowsOf<T>(x), to);
  return memory;
}

}  // namespace

InputRows::InputRows(CallQueue& queue, ActivationRows x)
    : exact_(x.dtype == DType::kF32),
      rows_(x.rows),
      cols_(x.cols),
      stride_(x.stride),
      data_(x.data) {
  if (rows_ == 0 || (LiesAsKernelsRead(x) && queue.device().Reaches(x.data))) return;
  stride_ = RoundUp(cols_, kRowElements);
  if (exact_) {
    data_ = PaddedCopy<float>(queue, x, stride_);
  } else {
    data_ = PaddedCopy<simt::Bf16>(queue, x, stride_);
  }
}

PackedOp::PackedOp(Device& device, const DeltaOp& op, bool exact)
    : memory_(device), exact_(exact), flops_(FlopsPerToken(op)) {}

void PackedOp::Apply(std::span<const DeltaSegment>, const InputRows&, FloatRows, CallQueue&) const {
  KERNEL_CHECK(false, "Apply takes deltas and bottlenecks only");
}
void PackedOp::TransformInput(const DeltaSegment&, const InputRows&, ActivationRows,
                              CallQueue&) const {
  KERNEL_CHECK(false, "an input op");
}
void PackedOp::TransformOutput(const DeltaSegment&, FloatRows, CallQueue&) const {
  KERNEL_CHECK(false, "an output op");
}
void PackedOp::TransformEmbedding(const DeltaSegment&, const int32_t*, FloatRows,
                                  CallQueue&) const {
  KERNEL_CHECK(false, "an embedding op");
}

absl::StatusOr<std::unique_ptr<PackedOp>> PackOp(Device& device, const DeltaOp& op, bool exact) {
  const absl::Status checked = CheckDeltaOp(op);
  if (!checked.ok()) return checked;
  std::unique_ptr<PackedOp> packed = PackProductOp(device, op, exact);
  if (packed == nullptr) packed = PackSiteOp(device, op, exact);
  KERNEL_CHECK(packed != nullptr, "every op has a packed form");
  if (packed->refused()) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("the device has no memory left for an op (%s)", NameOf(op)));
  }
  return packed;
}

}  // namespace polyad::cuda
