#pragma once

// Deltas of the CPU backend: y[t] += B (A x[t]) for the rows of each segment
// (kernels/api/delta_op.h). Each op keeps A and B behind one another in memory, so that a step
// streams an adapter's bytes once. Work is divided by rows: one task owns a run of rows and
// applies, in the order of `segments`, all that touches them; no sum is split and a row's bits
// depend on its own ops alone. In kAuto mode A, B and the rank-sized middle h = A x are bf16 with
// fp32 sums; in kF32 mode all is fp32.

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
                                                          Isa isa);

// x as for GemmCpu: [rows, in]; y: [rows, >= y_column + out]. Ops must come from PackDeltaCpu.
// Engine thread.
void ApplyCpu(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y,
              ThreadPool& pool);

}  // namespace polyad::cpu
