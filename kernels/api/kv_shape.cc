#include "kernels/api/kv_shape.h"

#include "absl/status/status.h"
#include "absl/strings/str_format.h"

namespace polyad {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 20;

}  // namespace

absl::StatusOr<KvShape> SettleKvShape(const KvShape& shape, ComputeMode mode) {
  for (int64_t size : {shape.num_layers, shape.num_kv_heads, shape.head_dim}) {
    if (size >= 1 && size <= kMaxSize) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("K/V pages: expected sizes from 1 to %d, got %d layers, %d kv heads of %d",
                        kMaxSize, shape.num_layers, shape.num_kv_heads, shape.head_dim));
  }
  const bool exact = mode == ComputeMode::kF32;
  KvShape settled = shape;
  if (shape.format == KvFormat::kAuto) {
    settled.format = exact ? KvFormat::kF32 : KvFormat::kBF16;
  }
  if (exact != (settled.format == KvFormat::kF32)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("K/V format %s: expected %s in this compute mode", NameOf(settled.format),
                        exact ? "f32" : "bf16, int8 or int4"));
  }
  return settled;
}

}  // namespace polyad
