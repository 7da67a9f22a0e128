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

namespace polyad::cpu {
namespace {

constexpr int64_t kQ8PanelBlock =
    kPanelColumns * kDepthBlock;  // bytes of integers per block of a panel
constexpr int64_t kQ4PanelBlock = kPanelColumns * kDepthBlock / 2;
constexpr int64_t kScaleBytes = kPanelColumns * 2;

struct BlockShape {
  int64_t integers = 0;  // bytes per panel block
  int64_t total = 0;     // with scales and minima
};

BlockShape ShapeOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kQ8_0:
      return {kQ8PanelBlock, kQ8PanelBlock + kScaleBytes};
    case WeightFormat::kQ4_0:
      return {kQ4PanelBlock, kQ4PanelBlock + kScaleBytes};
    case WeightFormat::kQ4_1:
      return {kQ4PanelBlock, kQ4PanelBlock + 2 * kScaleBytes};
    case WeightFormat::kF32:
    case WeightFormat::kBF16:
    case WeightFormat::kGrouped:
      break;
  }
  return {};
}

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

// One stored row of blocks into its column of a quantised panel.
void WriteQuantizedColumn(const TensorView& tensor, int64_t row, int64_t column, char* panel) {
  const int64_t block_bytes = InfoOf(tensor.dtype).block_bytes;
  const auto* source =
      static_cast<const uint8_t*>(tensor.data) + row * RowBytes(tensor.dtype, tensor.cols);
  const WeightFormat format = *FormatOf(tensor.dtype, ComputeMode::kAuto);
  const BlockShape shape = ShapeOf(format);
  const int64_t tile = column / kTileColumns;
  const int64_t lane = column % kTileColumns;
  const int64_t groups = shape.integers / (kPanelColumns * 4);
  for (int64_t block = 0; block < tensor.cols / kDepthBlock; ++block) {
    const uint8_t* from = source + block * block_bytes;
    char* to = panel + block * shape.total;
    std::memcpy(to + shape.integers + column * 2, from, 2);
    from += 2;
    if (format == WeightFormat::kQ4_1) {
      std::memcpy(to + shape.integers + kScaleBytes + column * 2, from, 2);
      from += 2;
    }
    char* integers = to + tile * groups * kTileColumns * 4 + lane * 4;
    const uint8_t flip = format == WeightFormat::kQ8_0 ? 0x80 : 0;  // int8 + 128 as uint8
    for (int64_t group = 0; group < groups; ++group) {
      for (int64_t i = 0; i < 4; ++i) {
        integers[group * kTileColumns * 4 + i] = static_cast<char>(from[group * 4 + i] ^ flip);
      }
    }
  }
}

template <typename Element>
void WriteTiles(const float* rows, int64_t in, int64_t columns, int64_t group, char* panel) {
  auto* to = reinterpret_cast<Element*>(panel);
  for (int64_t k = 0; k < in; k += kDepthBlock) {
    const int64_t k_end = std::min(in, k + kDepthBlock);
    for (int64_t tile = 0; tile < columns; tile += kTileColumns) {
      const int64_t tile_end = std::min(columns, tile + kTileColumns);
      for (int64_t first = k; first < k_end; first += group) {
        for (int64_t column = tile; column < tile_end; ++column) {
          for (int64_t i = 0; i < group; ++i) {
            const float value = first + i < in ? rows[column * in + first + i] : 0.0f;
            if constexpr (sizeof(Element) == 2) {
              *to++ = ToBf16(value);
            } else {
              *to++ = value;
            }
          }
        }
      }
    }
  }
}

void PackPanel(const StackedRows& rows, const CpuMatrix& matrix, int64_t panel, char* to) {
  const int64_t first = panel * kPanelColumns;
  const int64_t columns = std::min(kPanelColumns, matrix.out() - first);
  std::vector<float> decoded;
  if (!matrix.quantized()) decoded.resize(static_cast<size_t>(columns * matrix.in()));
  for (int64_t column = 0; column < columns; ++column) {
    int64_t row = first + column;
    const TensorView& part = rows.Find(&row);
    if (matrix.quantized()) {
      WriteQuantizedColumn(part, row, column, to);
    } else {
      DecodeRow(part, row, decoded.data() + column * matrix.in());
    }
  }
  if (!matrix.quantized()) WritePanel(matrix.format(), decoded.data(), matrix.in(), columns, to);
}

absl::Status CheckParts(std::span<const TensorView> parts) {
  if (parts.empty()) return absl::InvalidArgumentError("pack: no parts");
  const bool may_mix = PacksGrouped(parts);
  for (const TensorView& part : parts) {
    if (absl::StatusOr<WeightFormat> format = FormatOf(part.dtype, ComputeMode::kAuto);
        !format.ok()) {
      return format.status();
    }
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

void UnpackQuantized(const CpuMatrix& matrix, const char* panel, int64_t column, float* out) {
  const BlockShape shape = ShapeOf(matrix.format());
  const int64_t groups = shape.integers / (kPanelColumns * 4);
  const int64_t tile = column / kTileColumns;
  for (int64_t block = 0; block < matrix.in() / kDepthBlock; ++block, out += kDepthBlock) {
    const char* from = panel + block * shape.total;
    const auto* integers = reinterpret_cast<const uint8_t*>(from) +
                           tile * groups * kTileColumns * 4 + column % kTileColumns * 4;
    const float d = FromF16(LoadU16(from + shape.integers + column * 2));
    const float minimum = matrix.format() == WeightFormat::kQ4_1
                              ? FromF16(LoadU16(from + shape.integers + kScaleBytes + column * 2))
                              : 0.0f;
    for (int64_t i = 0; i < groups * 4; ++i) {
      const int q = integers[i / 4 * kTileColumns * 4 + i % 4];
      if (matrix.format() == WeightFormat::kQ8_0) {
        out[i] = d * static_cast<float>(q - 128);
        continue;
      }
      const int offset = matrix.format() == WeightFormat::kQ4_0 ? 8 : 0;
      out[i] = d * static_cast<float>((q & 15) - offset) + minimum;
      out[i + 16] = d * static_cast<float>((q >> 4) - offset) + minimum;
    }
  }
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
    case WeightFormat::kQ8_0:
    case WeightFormat::kQ4_0:
    case WeightFormat::kQ4_1:
      return in / kDepthBlock * ShapeOf(format).total;
    case WeightFormat::kGrouped:
      break;
  }
  return 0;
}

int64_t MatrixBytes(WeightFormat format, int64_t in, int64_t out) {
  const int64_t ragged = out % kPanelColumns;
  return out / kPanelColumns * PanelBytes(format, in, kPanelColumns) +
         (ragged == 0 ? 0 : PanelBytes(format, in, ragged));
}

absl::StatusOr<WeightFormat> FormatOf(DType dtype, ComputeMode mode) {
  const bool floats = dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
  const bool blocks = dtype == DType::kQ8_0 || dtype == DType::kQ4_0 || dtype == DType::kQ4_1;
  if (!floats && !blocks && dtype != DType::kGrouped) {
    return absl::InvalidArgumentError(
        absl::StrFormat("pack: %s is not a weight type (f32, f16, bf16, q8_0, q4_0, q4_1, grouped)",
                        std::string(InfoOf(dtype).name)));
  }
  if (mode == ComputeMode::kF32) return WeightFormat::kF32;
  if (floats) return WeightFormat::kBF16;
  if (dtype == DType::kGrouped) return WeightFormat::kGrouped;
  if (dtype == DType::kQ8_0) return WeightFormat::kQ8_0;
  return dtype == DType::kQ4_0 ? WeightFormat::kQ4_0 : WeightFormat::kQ4_1;
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
  if (format == WeightFormat::kBF16) {
    WriteTiles<uint16_t>(rows, in, columns, 2, panel);
  } else {
    WriteTiles<float>(rows, in, columns, 1, panel);
  }
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrixCpu(std::span<const TensorView> parts,
                                                            ComputeMode mode, Isa isa,
                                                            ThreadPool* pool) {
  if (absl::Status status = CheckParts(parts); !status.ok()) return status;
  absl::StatusOr<WeightFormat> format = FormatOf(parts[0].dtype, mode);
  if (!format.ok()) return format.status();
  if (mode == ComputeMode::kAuto && PacksGrouped(parts)) {
    auto grouped = GroupedMatrix::Pack(parts, RowKernelsOf(isa).decode_grouped);
    if (!grouped.ok()) return grouped.status();
    return std::make_unique<CpuMatrix>(*std::move(grouped), KernelsOf(isa));
  }
  int64_t out = 0;
  for (const TensorView& part : parts) out += part.rows;
  const int64_t panels = (out + kPanelColumns - 1) / kPanelColumns;
  absl::StatusOr<std::shared_ptr<char>> memory =
      AllocatePacked(panels * PanelBytes(*format, parts[0].cols, kPanelColumns));
  if (!memory.ok()) return memory.status();
  char* bytes = memory->get();
  auto matrix = std::make_unique<CpuMatrix>(*format, out, parts[0].cols, KernelsOf(isa), *memory);
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
  if (matrix.quantized()) {
    UnpackQuantized(matrix, matrix.panel(index), row % kPanelColumns, out);
  } else {
    UnpackFloats(matrix.format() == WeightFormat::kBF16, matrix.in(), matrix.panel(index),
                 {row % kPanelColumns, columns}, out);
  }
}

}  // namespace polyad::cpu
