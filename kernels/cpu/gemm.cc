#include "kernels/cpu/gemm.h"

#include <cpuid.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/functional/function_ref.h"
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
int64_t PanelsPerTask(const CpuMatrix& matrix, int threads) {
  if (threads == 1) return matrix.num_panels();
  const int64_t panels = matrix.num_panels() / (threads * kTasksPerThread);
  return std::max<int64_t>(1, panels);
}

// A run of panels and the kernel that takes it.
struct Panels {
  PanelTask task;
  PanelKernel kernel;
  int64_t first_column;
};

Panels GroupedPanelOf(const CpuMatrix& matrix, int64_t index, PanelTask task) {
  const GroupedMatrix& grouped = *matrix.grouped();
  const GroupedMatrix::Panel panel = grouped.PanelAt(index);
  task.columns = panel.grouped.columns;
  if (!grouped.integers()) {
    task.panels = grouped.Bf16Panel(panel);
    return {task, matrix.kernels().bf16, panel.first_column};
  }
  task.panels = reinterpret_cast<const char*>(panel.grouped.codes);
  task.scaling = grouped.ScalingOf(panel);
  const GemmKernels& kernels = matrix.kernels();
  return {task, panel.grouped.bits == 4 ? kernels.integers4 : kernels.integers8,
          panel.first_column};
}

// Calls run(panels) for panels [begin, end): at once, or one by one where they are grouped.
void ForPanels(const CpuMatrix& matrix, int64_t begin, int64_t end, const PanelTask& task,
               absl::FunctionRef<void(const Panels&)> run) {
  if (matrix.grouped() != nullptr) {
    for (int64_t index = begin; index < end; ++index) run(GroupedPanelOf(matrix, index, task));
    return;
  }
  const int64_t first = begin * kPanelColumns;
  PanelTask all = task;
  all.panels = matrix.panel(begin);
  all.panel_bytes = matrix.panel_bytes();
  all.columns = std::min(end * kPanelColumns, matrix.out()) - first;
  run({all, KernelOf(matrix.kernels(), matrix.format()), first});
}

int64_t PanelOfRow(const CpuMatrix& matrix, int64_t row) {
  return matrix.grouped() != nullptr ? matrix.grouped()->PanelOfRow(row) : row / kPanelColumns;
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
  return format == WeightFormat::kF32 ? kernels.f32 : kernels.bf16;
}

void GemmCpu(const GemmArgs& args, ActivationRows x, FloatRows y, ThreadPool& pool) {
  const auto& matrix = static_cast<const CpuMatrix&>(*args.weight);
  KERNEL_CHECK(x.cols == matrix.in() && y.cols == matrix.out() && x.rows == y.rows, "gemm: shapes");
  if (x.rows == 0) return;
  PanelTask inputs;
  const int64_t row_bytes = PrepareInputs(matrix.format(), matrix.kernels(), x, pool, &inputs);
  PanelTask whole = inputs;
  whole.accumulate = args.accumulate;
  whole.y_stride = y.stride;
  const int64_t row_block = RowsPerBlock(row_bytes);
  const int64_t per_task = PanelsPerTask(matrix, pool.num_threads());
  const int64_t tasks = (matrix.num_panels() + per_task - 1) / per_task;
  const auto multiply = [&](const Panels& panels) {
    const int64_t first = panels.first_column;
    for (int64_t row = 0; row < x.rows; row += row_block) {
      PanelTask part = RowsOf(panels.task, row, std::min(x.rows, row + row_block));
      part.bias = args.bias == nullptr ? nullptr : args.bias + first;
      part.y = y.Row(row) + first;
      panels.kernel(part);
    }
  };
  const auto run = [&](int64_t index) {
    const int64_t end = std::min((index + 1) * per_task, matrix.num_panels());
    ForPanels(matrix, index * per_task, end, whole, multiply);
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
  if (x.rows == 0 || y.cols == 0) return;
  ThreadPool alone(1);
  PanelTask whole;
  const int64_t row_block =
      RowsPerBlock(PrepareInputs(matrix.format(), matrix.kernels(), x, alone, &whole));
  std::vector<float> products;
  const auto multiply = [&](const Panels& panels, float* to, int64_t stride) {
    for (int64_t row = 0; row < x.rows; row += row_block) {
      PanelTask part = RowsOf(panels.task, row, std::min(x.rows, row + row_block));
      part.y = to + row * stride;
      part.y_stride = stride;
      panels.kernel(part);
    }
  };
  const auto run = [&](const Panels& panels) {
    const int64_t first = panels.first_column;
    const int64_t columns = panels.task.columns;
    if (first >= first_row && first + columns <= end_row) {
      return multiply(panels, y.Row(0) + first - first_row, y.stride);
    }
    // Some of its columns are not asked for.
    products.resize(static_cast<size_t>(x.rows * columns));
    multiply(panels, products.data(), columns);
    const int64_t begin = std::max(first, first_row);
    const int64_t count = std::min(first + columns, end_row) - begin;
    for (int64_t row = 0; row < x.rows; ++row) {
      std::copy_n(products.data() + row * columns + begin - first, count,
                  y.Row(row) + begin - first_row);
    }
  };
  // The panels that lie within go to their kernel at once, those at the borders one by one.
  const int64_t begin = PanelOfRow(matrix, first_row);
  const int64_t end = PanelOfRow(matrix, end_row - 1) + 1;
  if (matrix.grouped() != nullptr) return ForPanels(matrix, begin, end, whole, run);
  const int64_t within = first_row % kPanelColumns == 0 ? begin : begin + 1;
  const bool ends_whole = end_row % kPanelColumns == 0 || end_row == matrix.out();
  const int64_t after = std::max(within, ends_whole ? end : end - 1);
  if (begin < within) ForPanels(matrix, begin, within, whole, run);
  if (within < after) ForPanels(matrix, within, after, whole, run);
  if (after < end) ForPanels(matrix, after, end, whole, run);
}

}  // namespace polyad::cpu
