#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/cpu/choose_row_kernels.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/number_format.h"
#include "kernels/cpu/packed_memory.h"
#include "kernels/cpu/panel_tiles.h"

namespace polyad::cpu {
namespace {

uint16_t LoadU16(const void* from) {
  uint16_t value = 0;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

void DecodeBlock(DType dtype, const uint8_t* block, float* out) {
  const float d = FromF16(LoadU16(block));
  if (dtype == DType::kQ8_0) {
    const auto* q = reinterpret_cast<const int8_t*>(block + 2);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i]);
    return;
  }
  const bool has_minimum = dtype == DType::kQ4_1;
  const float minimum = has_minimum ? FromF16(LoadU16(block + 2)) : 0.0f;
  const uint8_t* q = block + (has_minimum ? 4 : 2);
  const int offset = has_minimum ? 0 : 8;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((q[i] & 15) - offset) + minimum;
    out[i + 16] = d * static_cast<float>((q[i] >> 4) - offset) + minimum;
  }
}

// The stored rows of several parts as one tall matrix.
struct StackedRows {
  std::span<const TensorView> parts;

  const TensorView& Find(int64_t* row) const {
    for (const TensorView& part : parts) {
      if (*row < part.rows) return part;
      *row -= part.rows;
    }
    return parts.back();
  }
};

void PackPanel(const StackedRows& rows, const CpuMatrix& matrix, int64_t panel, char* to) {
  const int64_t first = panel * kPanelColumns;
  const int64_t columns = std::min(kPanelColumns, matrix.out() - first);
  std::vector<float> decoded(static_cast<size_t>(columns * matrix.in()));
  for (int64_t column = 0; column < columns; ++column) {
    int64_t row = first + column;
    const TensorView& part = rows.Find(&row);
    DecodeRow(part, row, decoded.data() + column * matrix.in());
  }
  WritePanel(matrix.format(), decoded.data(), matrix.in(), columns, to);
}

absl::Status CheckType(DType dtype) {
  const bool floats = dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
  const bool blocks = dtype == DType::kQ8_0 || dtype == DType::kQ4_0 || dtype == DType::kQ4_1;
  if (floats || blocks || dtype == DType::kGrouped) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("pack: %s is not a weight type (f32, f16, bf16, q8_0, q4_0, q4_1, grouped)",
                      std::string(InfoOf(dtype).name)));
}

absl::Status CheckParts(std::span<const TensorView> parts) {
  if (parts.empty()) return absl::InvalidArgumentError("pack: no parts");
  const bool may_mix = PacksGrouped(parts);
  for (const TensorView& part : parts) {
    if (absl::Status status = CheckType(part.dtype); !status.ok()) return status;
    if (part.cols != parts[0].cols || (part.dtype != parts[0].dtype && !may_mix)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("pack: parts must share columns and dtype: expected %d %s, got %d %s",
                          parts[0].cols, std::string(InfoOf(parts[0].dtype).name), part.cols,
                          std::string(InfoOf(part.dtype).name)));
    }
    if (part.rows < 1 || part.cols < 1 || part.cols % InfoOf(part.dtype).block_elements != 0) {
      return absl::InvalidArgumentError(absl::StrFormat("pack: a part of %d x %d %s", part.rows,
                                                        part.cols,
                                                        std::string(InfoOf(part.dtype).name)));
    }
  }
  return absl::OkStatus();
}

struct PanelColumn {
  int64_t column;
  int64_t columns;  // of the panel
};

void UnpackFloats(bool bf16, int64_t in, const char* panel, const PanelColumn& at, float* out) {
  const auto [column, columns] = at;
  const int64_t tile_begin = column / kTileColumns * kTileColumns;
  const int64_t width = std::min(kTileColumns, columns - tile_begin);
  for (int64_t k = 0; k < in; ++k) {
    const int64_t block = k / kDepthBlock * kDepthBlock;
    const int64_t depth =
        std::min(kDepthBlock, (in + (bf16 ? 1 : 0)) / (bf16 ? 2 : 1) * (bf16 ? 2 : 1) - block);
    const int64_t tile = block * columns + tile_begin * depth;  // elements before this tile
    const int64_t lane = column - tile_begin;
    if (bf16) {
      const int64_t element = tile + ((k - block) / 2 * width + lane) * 2 + (k - block) % 2;
      out[k] = FromBf16(LoadU16(panel + element * 2));
    } else {
      std::memcpy(out + k, panel + (tile + (k - block) * width + lane) * 4, 4);
    }
  }
}

}  // namespace

void UnpackBf16Column(const char* panel, int64_t in, int64_t columns, int64_t column, float* out) {
  UnpackFloats(true, in, panel, {column, columns}, out);
}

int64_t PanelBytes(WeightFormat format, int64_t in, int64_t columns) {
  switch (format) {
    case WeightFormat::kF32:
      return in * columns * 4;
    case WeightFormat::kBF16:
      return (in + 1) / 2 * columns * 4;
    case WeightFormat::kGrouped:
    case WeightFormat::kIntegers:
      break;
  }
  return 0;
}

int64_t MatrixBytes(WeightFormat format, int64_t in, int64_t out) {
  const int64_t ragged = out % kPanelColumns;
  return out / kPanelColumns * PanelBytes(format, in, kPanelColumns) +
         (ragged == 0 ? 0 : PanelBytes(format, in, ragged));
}

void DecodeRow(const TensorView& tensor, int64_t row, float* out) {
  if (tensor.dtype == DType::kGrouped) return DequantizeRow(*tensor.grouped, row, out);
  const auto* source =
      static_cast<const uint8_t*>(tensor.data) + row * RowBytes(tensor.dtype, tensor.cols);
  switch (tensor.dtype) {
    case DType::kF32:
      std::memcpy(out, source, static_cast<size_t>(tensor.cols) * 4);
      return;
    case DType::kF16:
      for (int64_t k = 0; k < tensor.cols; ++k) out[k] = FromF16(LoadU16(source + k * 2));
      return;
    case DType::kBF16:
      for (int64_t k = 0; k < tensor.cols; ++k) out[k] = FromBf16(LoadU16(source + k * 2));
      return;
    default:
      break;
  }
  const int64_t block_bytes = InfoOf(tensor.dtype).block_bytes;
  for (int64_t k = 0; k < tensor.cols; k += kDepthBlock) {
    DecodeBlock(tensor.dtype, source + k / kDepthBlock * block_bytes, out + k);
  }
}

void WritePanel(WeightFormat format, const float* rows, int64_t in, int64_t columns, char* panel) {
  if (format == WeightFormat::kBF16) return WriteBf16Tiles(rows, in, columns, panel);
  WriteFloatTiles(rows, in, columns, panel);
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrixCpu(std::span<const TensorView> parts,
                                                            ComputeMode mode, Isa isa,
                                                            ThreadPool* pool) {
  if (absl::Status status = CheckParts(parts); !status.ok()) return status;
  if (mode != ComputeMode::kF32 && PacksGrouped(parts)) {
    const RowKernels kernels = RowKernelsOf(isa);
    auto grouped = GroupedMatrix::Pack(parts, {kernels.decode_grouped, kernels.decode_scaling},
                                       mode == ComputeMode::kAuto);
    if (!grouped.ok()) return grouped.status();
    return std::make_unique<CpuMatrix>(*std::move(grouped), KernelsOf(isa));
  }
  const WeightFormat format = mode == ComputeMode::kF32 ? WeightFormat::kF32 : WeightFormat::kBF16;
  int64_t out = 0;
  for (const TensorView& part : parts) out += part.rows;
  const int64_t panels = (out + kPanelColumns - 1) / kPanelColumns;
  absl::StatusOr<std::shared_ptr<char>> memory =
      AllocatePacked(panels * PanelBytes(format, parts[0].cols, kPanelColumns));
  if (!memory.ok()) return memory.status();
  char* bytes = memory->get();
  auto matrix = std::make_unique<CpuMatrix>(format, out, parts[0].cols, KernelsOf(isa), *memory);
  const StackedRows rows{parts};
  const auto pack = [&](int64_t panel, int) {
    PackPanel(rows, *matrix, panel, bytes + panel * matrix->panel_bytes());
  };
  if (pool != nullptr) {
    pool->Run(panels, pack);
  } else {
    for (int64_t panel = 0; panel < panels; ++panel) pack(panel, 0);
  }
  return matrix;
}

void UnpackRow(const PackedMatrix& packed, int64_t row, float* out) {
  const auto& matrix = static_cast<const CpuMatrix&>(packed);
  if (matrix.grouped() != nullptr) return matrix.grouped()->UnpackRow(row, out);
  const int64_t index = row / kPanelColumns;
  const int64_t columns = std::min(kPanelColumns, matrix.out() - index * kPanelColumns);
  UnpackFloats(matrix.format() == WeightFormat::kBF16, matrix.in(), matrix.panel(index),
               {row % kPanelColumns, columns}, out);
}

}  // namespace polyad::cpu
