#include "kernels/cpu/gemm.h"

#include <cpuid.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/api/check.h"
#include "kernels/cpu/delta.h"
#include "kernels/cpu/gemm_inputs.h"
#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/packed_matrix.h"

namespace polyad::cpu {
namespace {

// Tasks per thread: enough that a thread delayed by its neighbours on the machine leaves little for
// the other to wait for, few enough that taking one (tens of ns) is nothing.
constexpr int64_t kTasksPerThread = 4;
constexpr int64_t kRowBlockBytes = 512 * 1024;  // of inputs: stay in a 1-2 MiB L2 beside a panel
constexpr int64_t kRowBlockUnit = 96;           // whole 12-row and 32-row tiles

int64_t RowsPerBlock(int64_t row_bytes) {
  return std::max(kRowBlockUnit, kRowBlockBytes / row_bytes / kRowBlockUnit * kRowBlockUnit);
}

int64_t PanelsPerTask(const CpuMatrix& matrix, int threads) {
  if (threads == 1) return matrix.num_panels();
  const int64_t panels = matrix.num_panels() / (threads * kTasksPerThread);
  return std::max<int64_t>(1, panels);
}

// Whether VDPBF16PS beats widening to fp32: on AMD it does two fused multiply-adds' work in one
// slot (Zen 4: 450 against 229 GFLOP/s on two threads), on Intel it is slower (Sapphire Rapids: 132
// against 375). A rule and not a timing, so that a machine's bits are the same on every start.
bool PrefersBf16Dot() {
  uint32_t eax = 0;
  uint32_t vendor[3] = {};  // ebx, edx, ecx spell the name
  if (__get_cpuid(0, &eax, &vendor[0], &vendor[2], &vendor[1]) == 0) return false;
  return std::memcmp(vendor, "AuthenticAMD", 12) == 0;
}

}  // namespace

const GemmKernels& KernelsOf(Isa isa) {
  static const GemmKernels scalar = ScalarGemmKernels();
  static const GemmKernels avx2 = Avx2GemmKernels();
  static const GemmKernels avx512 = Avx512GemmKernels(PrefersBf16Dot());
  static const GemmKernels amx = AmxGemmKernels();
  switch (isa) {
    case Isa::kScalar:
      return scalar;
    case Isa::kAvx2:
      return avx2;
    case Isa::kAvx512:
      return avx512;
    case Isa::kAmx:
      return amx;
  }
  return scalar;
}

PanelKernel KernelOf(const GemmKernels& kernels, WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return kernels.f32;
    case WeightFormat::kBF16:
      return kernels.bf16;
    case WeightFormat::kQ8_0:
      return kernels.q8_0;
    case WeightFormat::kQ4_0:
      return kernels.q4_0;
    case WeightFormat::kQ4_1:
      return kernels.q4_1;
  }
  return nullptr;
}

void GemmCpu(const GemmArgs& args, ActivationRows x, FloatRows y, ThreadPool& pool) {
  const auto& matrix = static_cast<const CpuMatrix&>(*args.weight);
  KERNEL_CHECK(x.cols == matrix.in() && y.cols == matrix.out() && x.rows == y.rows, "gemm: shapes");
  if (x.rows == 0) return;
  PanelTask inputs;
  const int64_t row_bytes = PrepareInputs(matrix.format(), matrix.kernels(), x, pool, &inputs);
  PanelTask whole = inputs;
  whole.panel_bytes = matrix.panel_bytes();
  whole.accumulate = args.accumulate;
  whole.y_stride = y.stride;
  const PanelKernel kernel = matrix.kernel();
  const int64_t row_block = RowsPerBlock(row_bytes);
  const int64_t per_task = PanelsPerTask(matrix, pool.num_threads());
  const int64_t tasks = (matrix.num_panels() + per_task - 1) / per_task;
  const auto run = [&](int64_t index) {
    const int64_t panel = index * per_task;
    const int64_t first = panel * kPanelColumns;
    PanelTask task = whole;
    task.panels = matrix.panel(panel);
    task.columns = std::min(per_task * kPanelColumns, matrix.out() - first);
    task.bias = args.bias == nullptr ? nullptr : args.bias + first;
    for (int64_t row = 0; row < x.rows; row += row_block) {
      PanelTask part = RowsOf(task, row, std::min(x.rows, row + row_block));
      part.y = y.Row(row) + first;
      kernel(part);
    }
  };
  const bool together = SharesInputs(args.deltas, matrix.format(), matrix.kernels());
  if (!args.deltas.empty() && together) {
    return ApplyAfterCpu({tasks, run}, args.deltas, {x, inputs}, y, pool);
  }
  pool.Run(tasks, [&](int64_t index, int) { run(index); });
  ApplyCpu(args.deltas, x, y, pool);
}

void ProductOfRowsCpu(const PackedMatrix& weight, int64_t first_row, ActivationRows x,
                      FloatRows y) {
  const auto& matrix = static_cast<const CpuMatrix&>(weight);
  const int64_t end_row = first_row + y.cols;
  KERNEL_CHECK(
      x.cols == matrix.in() && x.rows == y.rows && first_row >= 0 && end_row <= matrix.out(),
      "product of rows: shapes");
  if (x.rows == 0) return;
  ThreadPool alone(1);
  PanelTask whole;
  const int64_t row_block =
      RowsPerBlock(PrepareInputs(matrix.format(), matrix.kernels(), x, alone, &whole));
  const int64_t panel = first_row / kPanelColumns;
  const int64_t begin = panel * kPanelColumns;
  const int64_t end_panel = (end_row + kPanelColumns - 1) / kPanelColumns;
  whole.panels = matrix.panel(panel);
  whole.panel_bytes = matrix.panel_bytes();
  whole.columns = std::min(end_panel * kPanelColumns, matrix.out()) - begin;  // whole panels
  whole.y_stride = whole.columns;
  std::vector<float> products(static_cast<size_t>(std::min(row_block, x.rows) * whole.columns));
  for (int64_t row = 0; row < x.rows; row += row_block) {
    PanelTask part = RowsOf(whole, row, std::min(x.rows, row + row_block));
    part.y = products.data();
    matrix.kernel()(part);
    for (int64_t i = 0; i < part.rows; ++i) {
      const float* from = products.data() + i * whole.columns + first_row - begin;
      std::copy_n(from, y.cols, y.Row(row + i));
    }
  }
}

}  // namespace polyad::cpu
