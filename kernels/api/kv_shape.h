#pragma once

// What both backends ask of the shape of K/V pages before they lay them out. Any thread.

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"

namespace polyad {

// The shape with its format settled: kAuto is f32 in mode f32, else bf16. INVALID_ARGUMENT: a size
// out of range, or a format that does not go with the mode (f32 goes with f32 alone).
absl::StatusOr<KvShape> SettleKvShape(const KvShape& shape, ComputeMode mode);

}  // namespace polyad
