#pragma once

// What a product's kernel is fed: activation rows as they are, padded, widened to fp32, or
// quantised to int8 blocks. The converted rows live in scratch of the calling thread, which grows
// to the largest call and is reused: valid until the thread's next PrepareInputs. Conversion is per
// row, so it keeps the invariance promise.

#include <cstdint>

#include "kernels/api/backend.h"
#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/thread_pool.h"

namespace polyad::cpu {

// Fills the inputs of `task` (x or quantized, stride, rows, depth) and returns the bytes of one
// prepared row.
int64_t PrepareInputs(WeightFormat format, const GemmKernels& kernels, ActivationRows x,
                      ThreadPool& pool, PanelTask* task);

// How many prepared rows to take through a panel at a time.
int64_t RowsPerBlock(int64_t row_bytes);

// `task` restricted to input rows [begin, end); y is left to the caller.
PanelTask RowsOf(const PanelTask& task, int64_t begin, int64_t end);

}  // namespace polyad::cpu
