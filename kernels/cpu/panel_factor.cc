#include "kernels/cpu/panel_factor.h"

#include <algorithm>
#include <memory>

#include "kernels/api/round_up.h"
#include "kernels/cpu/packed_memory.h"
#include "kernels/cpu/panel_tiles.h"

namespace polyad::cpu {
namespace {

void WritePanels(const TensorView& matrix, float scale, WeightFormat format, char* to) {
  const int64_t most = std::min(matrix.rows, kPanelColumns) * matrix.cols;
  const bool as_stored = format == WeightFormat::kBF16 && matrix.dtype == DType::kBF16;
  const bool as_floats = matrix.dtype == DType::kF32 && scale == 1.0f;
  const auto decoded = std::make_unique_for_overwrite<float[]>(
      static_cast<size_t>(as_stored || as_floats ? 0 : most));
  for (int64_t first = 0; first < matrix.rows; first += kPanelColumns) {
    const int64_t columns = std::min(kPanelColumns, matrix.rows - first);
    const int64_t count = columns * matrix.cols;
    const char* stored =
        static_cast<const char*>(matrix.data) + RowBytes(matrix.dtype, first * matrix.cols);
    if (as_stored) {
      WriteBf16Tiles(reinterpret_cast<const uint16_t*>(stored), scale, matrix.cols, columns, to);
    } else if (as_floats) {
      WritePanel(format, reinterpret_cast<const float*>(stored), matrix.cols, columns, to);
    } else {
      // Rows lie one behind another: as one they are decoded fastest.
      DecodeRow({stored, matrix.dtype, 1, count}, 0, decoded.get());
      for (int64_t i = 0; i < count; ++i) decoded[static_cast<size_t>(i)] *= scale;
      WritePanel(format, decoded.get(), matrix.cols, columns, to);
    }
    to += PanelBytes(format, matrix.cols, kPanelColumns);
  }
}

}  // namespace

void PanelFactor::Describe(PanelTask* task) const {
  task->panels = panels.get();
  task->panel_bytes = PanelBytes(format, in, kPanelColumns);
  task->depth = in;
  task->columns = out;
}

absl::StatusOr<PanelFactor> PackFactor(const TensorView& matrix, float scale,
                                       const SitePacking& packing) {
  PanelFactor factor;
  factor.format = packing.format();
  factor.kernels = &packing.kernels;
  factor.out = matrix.rows;
  factor.in = matrix.cols;
  factor.bytes = MatrixBytes(factor.format, matrix.cols, matrix.rows);
  const PackShare::Key key{matrix.data, matrix.rows, matrix.cols, matrix.dtype, scale};
  if (auto packed = packing.share.Find(key)) {
    factor.panels = std::static_pointer_cast<const char>(packed);
    return factor;
  }
  absl::StatusOr<std::shared_ptr<char>> memory = AllocatePacked(factor.bytes);
  if (!memory.ok()) return memory.status();
  WritePanels(matrix, scale, factor.format, memory->get());
  factor.panels = *std::move(memory);
  factor.added = {PrecisionOf(factor.format), factor.bytes};
  packing.share.Insert(key, factor.panels);
  return factor;
}

MiddleRows::MiddleRows(const PanelFactor& next, int64_t num_rows, int64_t cols,
                       const SiteKernels& kernels, Scratch& scratch)
    : kernels_(kernels),
      cols_(cols),
      half_(next.format == WeightFormat::kBF16 && !next.kernels->bf16_takes_f32_rows) {
  stride_ = RoundUp(cols, half_ ? next.kernels->bf16_depth_multiple : 2);
  char* memory = scratch.Reserve(num_rows * stride_ * 6);
  rows_ = reinterpret_cast<float*>(memory);
  half_rows_ = reinterpret_cast<uint16_t*>(memory + num_rows * stride_ * 4);
}

PanelTask MiddleRows::AsInputs(int64_t num_rows) {
  for (int64_t row = 0; row < num_rows; ++row) {
    float* from = Row(row);
    std::fill(from + cols_, from + stride_, 0.0f);
    if (half_) kernels_.narrow(from, half_rows_ + row * stride_, stride_);
  }
  PanelTask task;
  task.rows = num_rows;
  task.x = half_ ? static_cast<const void*>(half_rows_) : rows_;
  task.x_bytes = half_ ? 2 : 4;
  task.x_stride = stride_;
  task.depth = cols_;
  return task;
}

}  // namespace polyad::cpu
