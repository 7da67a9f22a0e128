#pragma once

// Matrix products of the CPU backend: y[t] (+)= W x[t] + b over packed weights (packed_matrix.h).
// One output element is one accumulation over the input dimension in an order fixed by the
// instruction set, the weight format and that dimension: never by the number of rows, their
// position, the tile or the thread. The same kernel serves 1 row and a prefill chunk. Engine
// thread; the pool's workers take runs of column panels, never parts of a sum.

#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/thread_pool.h"

namespace polyad::cpu {

// Stacks parts along `out`; parts share `cols` and dtype (INVALID_ARGUMENT otherwise, and for
// dtypes that are not weights; RESOURCE_EXHAUSTED when memory is refused). kF32 decodes to fp32.
// The other modes keep bf16, Q8_0, Q4_0, Q4_1 and grouped rows as stored and round f32 and f16 to
// bf16 (nearest even); kAuto lets products with integer codes take int8 inputs. Quantised parts
// need not share a dtype with the others. Loader threads; `pool` may be null (packs on this
// thread).
absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrixCpu(std::span<const TensorView> parts,
                                                            ComputeMode mode, Isa isa,
                                                            ThreadPool* pool);

// x is f32 for matrices packed in kF32 mode and bf16 otherwise: [rows, in]; y: [rows, out]. y = (W
// x) + b, or y + ((W x) + b) when args.accumulate. args.weight must come from PackMatrixCpu.
void GemmCpu(const GemmArgs& args, ActivationRows x, FloatRows y, ThreadPool& pool);

// y = rows [first_row, first_row + y.cols) of W times x, on the calling thread alone; x as
// GemmCpu's. Any thread.
void ProductOfRowsCpu(const PackedMatrix& weight, int64_t first_row, ActivationRows x, FloatRows y);

// Row `row` of the matrix as floats, exactly as the products see it (tied embeddings): out[0, in).
void UnpackRow(const PackedMatrix& matrix, int64_t row, float* out);

}  // namespace polyad::cpu
