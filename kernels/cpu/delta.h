#pragma once

// Adapters' ops on the CPU backend (kernels/api/delta_op.h): packing by kind, and the drivers that
// divide the rows of a step. One task owns a run of rows and applies, in the order of `segments`,
// all that touches them; no sum is split and a row's bits depend on its own ops alone. A task
// streams an adapter's bytes once.

#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/thread_pool.h"

namespace polyad::cpu {

// INVALID_ARGUMENT for shapes that do not chain or dtypes that are not f32, f16, bf16;
// RESOURCE_EXHAUSTED when memory is refused. Loader threads.
absl::StatusOr<std::unique_ptr<PackedDelta>> PackDeltaCpu(const DeltaOp& op, ComputeMode mode,
                                                          Isa isa, PackShare& share);

// Ops must come from PackDeltaCpu. Engine thread. x as for GemmCpu: [rows, in]; y: [rows, >=
// y_column + out].
void ApplyCpu(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y,
              ThreadPool& pool);
void TransformInputCpu(std::span<const DeltaSegment> segments, ActivationRows x, ThreadPool& pool);
void TransformOutputCpu(std::span<const DeltaSegment> segments, FloatRows y, ThreadPool& pool);
void TransformEmbeddingCpu(std::span<const DeltaSegment> segments, std::span<const int32_t> ids,
                           FloatRows rows, ThreadPool& pool);

}  // namespace polyad::cpu
