#include "kernels/cpu/gemm_inputs.h"

#include <algorithm>
#include <cstring>

#include "absl/functional/function_ref.h"
#include "kernels/api/check.h"
#include "kernels/api/round_up.h"
#include "kernels/cpu/number_format.h"
#include "kernels/cpu/scratch.h"

namespace polyad::cpu {
namespace {

// Below this a fork-join (2-5 us) costs more than converting the rows on one thread.
constexpr int64_t kParallelElements = 64 * 1024;

constexpr int64_t kRowBlockBytes = 512 * 1024;  // of inputs: stay in a 1-2 MiB L2 beside a panel
constexpr int64_t kRowBlockUnit = 96;           // whole 12-row and 32-row tiles

void ForEachRow(ActivationRows x, ThreadPool& pool, absl::FunctionRef<void(int64_t)> convert) {
  if (x.rows * x.cols < kParallelElements || x.rows == 1) {
    for (int64_t row = 0; row < x.rows; ++row) convert(row);
    return;
  }
  const int64_t per_task = std::max<int64_t>(1, x.rows / (pool.num_threads() * 4));
  pool.Run((x.rows + per_task - 1) / per_task, [&](int64_t task, int) {
    const int64_t end = std::min(x.rows, (task + 1) * per_task);
    for (int64_t row = task * per_task; row < end; ++row) convert(row);
  });
}

const uint16_t* Bf16Row(ActivationRows x, int64_t row) {
  return static_cast<const uint16_t*>(x.data) + row * x.stride;
}

int64_t PrepareBf16(const GemmKernels& kernels, ActivationRows x, ThreadPool& pool,
                    PanelTask* task) {
  const int64_t padded = RoundUp(x.cols, kernels.bf16_depth_multiple);
  if (kernels.bf16_takes_f32_rows) {
    auto* wide = reinterpret_cast<float*>(InputScratch().Reserve(x.rows * padded * 4));
    ForEachRow(x, pool, [&](int64_t row) {
      const uint16_t* from = Bf16Row(x, row);
      float* to = wide + row * padded;
      for (int64_t k = 0; k < x.cols; ++k) to[k] = FromBf16(from[k]);
      std::fill(to + x.cols, to + padded, 0.0f);
    });
    task->x = wide;
    task->x_bytes = 4;
    task->x_stride = padded;
    return padded * 4;
  }
  if (padded == x.cols) return padded * 2;
  auto* copy = reinterpret_cast<uint16_t*>(InputScratch().Reserve(x.rows * padded * 2));
  ForEachRow(x, pool, [&](int64_t row) {
    std::memcpy(copy + row * padded, Bf16Row(x, row), static_cast<size_t>(x.cols) * 2);
    std::memset(copy + row * padded + x.cols, 0, static_cast<size_t>(padded - x.cols) * 2);
  });
  task->x = copy;
  task->x_stride = padded;
  return padded * 2;
}

// Sums of each half of every block, from the block's sum.
void SumHalves(const int8_t* q, const int32_t* sum, int64_t blocks, int32_t* half_sum) {
  constexpr int64_t kHalf = kDepthBlock / 2;
  for (int64_t block = 0; block < blocks; ++block, q += kDepthBlock) {
    int32_t first = 0;
    for (int64_t i = 0; i < kHalf; ++i) first += q[i];
    half_sum[2 * block] = first;
    half_sum[2 * block + 1] = sum[block] - first;
  }
}

int64_t PrepareQuantized(const GemmKernels& kernels, ActivationRows x, ThreadPool& pool,
                         PanelTask* task) {
  const int64_t blocks = x.cols / kDepthBlock;
  const int64_t q_bytes = RoundUp(x.rows * x.cols, 64);
  const int64_t scale_bytes = RoundUp(x.rows * blocks * 4, 64);
  char* memory = InputScratch().Reserve(q_bytes + 4 * scale_bytes);
  auto* q = reinterpret_cast<int8_t*>(memory);
  auto* scale = reinterpret_cast<float*>(memory + q_bytes);
  auto* sum = reinterpret_cast<int32_t*>(memory + q_bytes + scale_bytes);
  auto* half_sum = reinterpret_cast<int32_t*>(memory + q_bytes + 2 * scale_bytes);
  ForEachRow(x, pool, [&](int64_t row) {
    kernels.quantize(Bf16Row(x, row), x.cols, q + row * x.cols, scale + row * blocks,
                     sum + row * blocks);
    SumHalves(q + row * x.cols, sum + row * blocks, blocks, half_sum + row * blocks * 2);
  });
  task->quantized = {q, scale, sum, half_sum};
  return x.cols + blocks * 16;
}

}  // namespace

int64_t PrepareInputs(WeightFormat format, const GemmKernels& kernels, ActivationRows x,
                      ThreadPool& pool, PanelTask* task) {
  const DType expected = format == WeightFormat::kF32 ? DType::kF32 : DType::kBF16;
  KERNEL_CHECK(x.dtype == expected, "gemm: activations must be f32 for f32 weights, else bf16");
  task->x = x.data;
  task->x_stride = x.stride;
  task->x_bytes = x.dtype == DType::kF32 ? 4 : 2;
  task->rows = x.rows;
  task->depth = x.cols;
  switch (format) {
    case WeightFormat::kF32:
      return x.cols * 4;
    case WeightFormat::kBF16:
    case WeightFormat::kGrouped:
      return PrepareBf16(kernels, x, pool, task);
    case WeightFormat::kIntegers:
      return PrepareQuantized(kernels, x, pool, task);
  }
  return 0;
}

int64_t RowsPerBlock(int64_t row_bytes) {
  return std::max(kRowBlockUnit, kRowBlockBytes / row_bytes / kRowBlockUnit * kRowBlockUnit);
}

PanelTask RowsOf(const PanelTask& task, int64_t begin, int64_t end) {
  PanelTask part = task;
  part.rows = end - begin;
  if (task.quantized.q != nullptr) {
    const int64_t blocks = task.depth / kDepthBlock;
    part.quantized.q += begin * task.depth;
    part.quantized.scale += begin * blocks;
    part.quantized.sum += begin * blocks;
    part.quantized.half_sum += begin * blocks * 2;
    return part;
  }
  part.x = static_cast<const char*>(task.x) + begin * task.x_stride * task.x_bytes;
  return part;
}

}  // namespace polyad::cpu
