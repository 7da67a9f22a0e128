#pragma once

// Adapters' ops on the CPU backend (kernels/api/delta_op.h): packing by kind, and the drivers that
// divide the rows of a step. A unit of work is a run of rows with all that touches them, in the
// order of `segments`; no sum is split and a row's bits depend on its own ops alone. An adapter's
// bytes are streamed once. A thread begins with its own contiguous share of the units, so that it
// knows what it will read and fetches ahead across the ops (FetchAhead), then helps with others'
// shares.

#include <memory>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/site_op.h"
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

// The tasks of a product that writes y, then the segments' ops, in one fork-join: the ops are
// divided while other threads are at the product. Engine thread.
struct ProductTasks {
  int64_t count = 0;
  absl::FunctionRef<void(int64_t task)> run;
};
void ApplyAfterCpu(const ProductTasks& product, std::span<const DeltaSegment> segments,
                   const SiteInputs& inputs, FloatRows y, ThreadPool& pool);
// Whether Apply would feed the segments' ops with the inputs of a product in this format.
bool SharesInputs(std::span<const DeltaSegment> segments, WeightFormat format,
                  const GemmKernels& kernels);

void TransformInputCpu(std::span<const DeltaSegment> segments, ActivationRows x, ThreadPool& pool);
void TransformOutputCpu(std::span<const DeltaSegment> segments, FloatRows y, ThreadPool& pool);
void TransformEmbeddingCpu(std::span<const DeltaSegment> segments, std::span<const int32_t> ids,
                           FloatRows rows, ThreadPool& pool);

}  // namespace polyad::cpu
