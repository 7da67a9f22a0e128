#include "kernels/cpu/grouped_matrix.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "absl/strings/str_format.h"
#include "kernels/api/round_up.h"
#include "kernels/cpu/number_format.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/packed_memory.h"
#include "kernels/cpu/scratch.h"

namespace polyad::cpu {
namespace {

constexpr int64_t kHalf = 16;

int64_t Lines(int64_t bytes) { return RoundUp(bytes, 64); }

// The f16 of a number that f16 holds, or nothing.
bool F16Of(float value, uint16_t* out) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const float magnitude = std::fabs(value);
  if (!(magnitude <= 65504.0f)) return false;
  const bool normal = magnitude >= 0x1p-14f;
  *out = static_cast<uint16_t>(sign | (normal ? ((bits & 0x7fffffffu) - (112u << 23)) >> 13
                                              : static_cast<uint32_t>(magnitude * 0x1p24f)));
  return FromF16(*out) == value;
}

bool AllF16(const std::vector<float>& values) {
  uint16_t ignored = 0;
  return std::all_of(values.begin(), values.end(),
                     [&](float value) { return F16Of(value, &ignored); });
}

// A plane of numbers, [rows, width], on its way into panels.
struct Plane {
  const float* values = nullptr;
  const int8_t* factors = nullptr;  // in place of values
};

// Where a panel's sections lie, and what they are made of.
struct PartForm {
  GroupedPanel shape;  // without pointers
  std::vector<Plane> groups;
  std::vector<Plane> supers;
  int64_t num_groups = 0;
  int64_t num_supers = 0;
  int64_t element_bytes = 4;  // of a number of a group

  int64_t super_bytes() const { return num_supers * shape.planes * kPanelColumns * 2; }
  int64_t group_bytes() const {
    return Lines(num_groups * shape.planes * kPanelColumns * element_bytes);
  }
  int64_t code_bytes() const { return shape.depth * kPanelColumns * shape.bits / 8; }
  int64_t panel_bytes() const { return super_bytes() + group_bytes() + code_bytes(); }

  PrecisionBytes BytesOf(int64_t num_panels) const {
    const Precision of_groups = element_bytes == 4   ? Precision::kF32
                                : element_bytes == 2 ? Precision::kF16
                                                     : Precision::k8Bit;
    const Precision of_codes = shape.bits == 4 ? Precision::k4Bit : Precision::k8Bit;
    PrecisionBytes bytes(Precision::kF16, num_panels * super_bytes());
    bytes += {of_groups, num_panels * group_bytes()};
    bytes += {of_codes, num_panels * code_bytes()};
    return bytes;
  }
};

PartForm FormOfPart(const GroupedRows& part) {
  PartForm form;
  GroupedPanel& shape = form.shape;
  shape.kind = part.kind;
  shape.bits = part.bits;
  shape.depth = part.cols;
  shape.halves_per_group = part.group / kHalf;
  shape.zero = part.zero;
  shape.has_zero = !part.zeros.empty();
  shape.has_minimum = !part.minima.empty();
  shape.planes = 1 + (shape.has_zero ? 1 : 0) + (shape.has_minimum ? 1 : 0);
  shape.num_groups = part.num_groups;
  form.num_groups = part.num_groups;
  std::vector<Plane> planes = {{part.scales.data(), nullptr}};
  if (shape.has_zero) planes.push_back({part.zeros.data(), nullptr});
  if (shape.has_minimum) planes.push_back({part.minima.data(), nullptr});
  shape.f16 = AllF16(part.scales) && AllF16(part.zeros) && AllF16(part.minima);
  if (part.groups_per_super == 0) {
    form.groups = std::move(planes);
    form.element_bytes = shape.f16 ? 2 : 4;
    return form;
  }
  shape.groups_per_super = part.groups_per_super;
  form.num_supers = part.num_groups / part.groups_per_super;
  form.supers = std::move(planes);
  form.groups.push_back({nullptr, part.scale_factors.data()});
  if (shape.has_minimum) form.groups.push_back({nullptr, part.minimum_factors.data()});
  form.element_bytes = 1;
  return form;
}

// Column `column` of a panel's planes from row `row` of the part: `width` numbers of each plane.
struct PlaneColumn {
  int64_t row;
  int64_t column;
  int64_t width;
  int64_t element_bytes;
};

void WritePlanes(const std::vector<Plane>& planes, const PlaneColumn& at, char* to) {
  const auto num_planes = static_cast<int64_t>(planes.size());
  for (int64_t plane = 0; plane < num_planes; ++plane) {
    const Plane& from = planes[static_cast<size_t>(plane)];
    for (int64_t i = 0; i < at.width; ++i) {
      char* place = to + ((i * num_planes + plane) * kPanelColumns + at.column) * at.element_bytes;
      const int64_t index = at.row * at.width + i;
      if (from.factors != nullptr) {
        *place = static_cast<char>(from.factors[index]);
      } else if (at.element_bytes == 2) {
        uint16_t half = 0;
        F16Of(from.values[index], &half);
        std::memcpy(place, &half, sizeof(half));
      } else {
        std::memcpy(place, from.values + index, sizeof(float));
      }
    }
  }
}

// `depth` codes of one row into a column of a panel that is all zeros.
template <int kBits>
void WriteCodes(const uint8_t* codes, int64_t depth, int64_t column, uint32_t* to) {
  constexpr int64_t kPerWord = 32 / kBits;
  for (int64_t k = 0; k < depth; k += kPerWord, codes += kPerWord) {
    uint32_t word = 0;
    for (int i = 0; i < static_cast<int>(kPerWord); ++i) {
      word |= static_cast<uint32_t>(codes[i] & ((1u << kBits) - 1)) << (i % 4 * 8 + i / 4 * 4);
    }
    to[PlaceOfCode(kBits, k, column).word] = word;
  }
}

// One row of the part into its column of a panel.
void WriteRow(const GroupedRows& part, const PartForm& form, int64_t row, char* panel) {
  const int64_t column = row % kPanelColumns;
  char* groups = panel + form.super_bytes();
  WritePlanes(form.supers, {row, column, form.num_supers, 2}, panel);
  WritePlanes(form.groups, {row, column, form.num_groups, form.element_bytes}, groups);
  const uint8_t* codes = part.codes.data() + row * part.cols;
  auto* to = reinterpret_cast<uint32_t*>(groups + form.group_bytes());
  if (part.bits == 4) {
    WriteCodes<4>(codes, part.cols, column, to);
  } else {
    WriteCodes<8>(codes, part.cols, column, to);
  }
}

GroupedRows FromBlocks(const TensorView& part) {
  GroupedRows made = MakeGroupedRows(part.rows, part.cols, kDepthBlock);
  const bool bytes = part.dtype == DType::kQ8_0;
  const bool minimum = part.dtype == DType::kQ4_1;
  made.bits = bytes ? 8 : 4;
  made.zero = bytes ? 128.0f : minimum ? 0.0f : 8.0f;
  if (minimum) made.minima.resize(made.scales.size());
  const auto* block = static_cast<const uint8_t*>(part.data);
  for (size_t i = 0; i < made.scales.size(); ++i, block += InfoOf(part.dtype).block_bytes) {
    uint16_t half = 0;
    std::memcpy(&half, block, sizeof(half));
    made.scales[i] = FromF16(half);
    std::memcpy(&half, block + 2, sizeof(half));
    if (minimum) made.minima[i] = FromF16(half);
    const uint8_t* q = block + (minimum ? 4 : 2);
    uint8_t* codes = made.codes.data() + i * kDepthBlock;
    for (int k = 0; k < 32; ++k) {
      const int nibble = k < 16 ? q[k] & 15 : q[k - 16] >> 4;
      codes[k] = static_cast<uint8_t>(bytes ? q[k] ^ 0x80 : nibble);
    }
  }
  return made;
}

// One plane's number of a column.
float PlaneOf(const GroupedPanel& panel, int64_t group, int64_t plane, int64_t column) {
  const int64_t at = (group * panel.planes + plane) * kPanelColumns + column;
  if (panel.supers != nullptr) {
    const int64_t super = group / panel.groups_per_super * panel.planes + plane;
    return FromF16(panel.supers[super * kPanelColumns + column]) *
           static_cast<float>(reinterpret_cast<const int8_t*>(panel.groups)[at]);
  }
  if (panel.f16) return FromF16(reinterpret_cast<const uint16_t*>(panel.groups)[at]);
  return reinterpret_cast<const float*>(panel.groups)[at];
}

float ValueOf(const GroupedPanel& panel, int64_t k, int64_t column) {
  const CodePlace place = PlaceOfCode(panel.bits, k, column);
  const uint32_t mask = (1u << panel.bits) - 1;
  const uint32_t code = (panel.codes[place.word] >> place.shift) & mask;
  const int64_t group =
      panel.group_of != nullptr ? panel.group_of[k] : k / kHalf / panel.halves_per_group;
  const float scale = PlaneOf(panel, group, 0, column);
  if (panel.kind == CodeKind::kLevels) return scale * panel.levels[code];
  if (panel.kind == CodeKind::kFloat8) return scale * Float8ToFloat(static_cast<uint8_t>(code));
  const float zero = panel.has_zero ? PlaneOf(panel, group, 1, column) : panel.zero;
  const float value = scale * (static_cast<float>(code) - zero);
  return panel.has_minimum ? value + PlaneOf(panel, group, panel.planes - 1, column) : value;
}

// Whether products may take the part's codes as they are: in groups of 16 inputs or of whole
// blocks, and codes less the zero signed bytes.
bool AreIntegers(const TensorView& part) {
  if (InfoOf(part.dtype).block_elements > 1) return true;
  if (part.dtype != DType::kGrouped) return false;
  const GroupedRows& rows = *part.grouped;
  const int64_t halves = rows.group / kHalf;
  if (rows.kind != CodeKind::kInteger || !rows.group_of.empty()) return false;
  if (halves != 1 && halves % 2 != 0) return false;
  if (!rows.zeros.empty() || rows.bits == 4 || rows.zero == 128.0f) {
    return rows.zero == std::floor(rows.zero) && rows.zero >= 0.0f && rows.zero <= 128.0f;
  }
  const float largest = *std::max_element(rows.codes.begin(), rows.codes.end());
  return rows.zero == std::floor(rows.zero) && rows.zero >= 0.0f && largest - rows.zero <= 127.0f;
}

Scratch& PanelScratch() {
  static thread_local Scratch scratch;
  return scratch;
}

}  // namespace

bool PacksGrouped(std::span<const TensorView> parts) {
  return std::any_of(parts.begin(), parts.end(), [](const TensorView& part) {
    return part.dtype == DType::kGrouped || InfoOf(part.dtype).block_elements > 1;
  });
}

absl::StatusOr<std::shared_ptr<const GroupedMatrix>> GroupedMatrix::Pack(
    std::span<const TensorView> parts, const GroupedDecoders& decoders, bool int8_inputs) {
  auto matrix = std::make_shared<GroupedMatrix>();
  matrix->decoders_ = decoders;
  matrix->integers_ = int8_inputs && std::all_of(parts.begin(), parts.end(), AreIntegers);
  matrix->in_ = parts[0].cols;
  if (matrix->in_ % kDepthBlock != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("pack: quantised rows: expected a multiple of %d inputs, got %d",
                        kDepthBlock, matrix->in_));
  }
  for (const TensorView& part : parts) {
    if (absl::Status status = matrix->PackPart(part); !status.ok()) return status;
  }
  return matrix;
}

absl::StatusOr<char*> GroupedMatrix::Allocate(const PrecisionBytes& bytes) {
  absl::StatusOr<std::shared_ptr<char>> memory = AllocatePacked(bytes.total());
  if (!memory.ok()) return memory.status();
  memory_.push_back(*std::move(memory));
  bytes_ += bytes;
  return memory_.back().get();
}

absl::Status GroupedMatrix::PackPart(const TensorView& part) {
  absl::Status status;
  if (part.dtype == DType::kGrouped) {
    status = PackGrouped(*part.grouped);
  } else if (InfoOf(part.dtype).block_elements > 1) {
    status = PackGrouped(FromBlocks(part));
  } else {
    status = PackFloats(part);
  }
  if (!status.ok()) return status;
  Part& packed = parts_.back();
  packed.first_panel = num_panels_;
  packed.first_column = out_;
  packed.rows = part.rows;
  num_panels_ += (part.rows + kPanelColumns - 1) / kPanelColumns;
  out_ += part.rows;
  return absl::OkStatus();
}

absl::Status GroupedMatrix::PackFloats(const TensorView& part) {
  absl::StatusOr<char*> memory =
      Allocate({Precision::kBF16, MatrixBytes(WeightFormat::kBF16, in_, part.rows)});
  if (!memory.ok()) return memory.status();
  Part packed;
  packed.bf16 = true;
  packed.panels = *memory;
  packed.panel_bytes = PanelBytes(WeightFormat::kBF16, in_, kPanelColumns);
  std::vector<float> rows(static_cast<size_t>(in_ * kPanelColumns));
  char* to = *memory;
  for (int64_t first = 0; first < part.rows; first += kPanelColumns, to += packed.panel_bytes) {
    const int64_t columns = std::min(kPanelColumns, part.rows - first);
    for (int64_t column = 0; column < columns; ++column) {
      DecodeRow(part, first + column, rows.data() + column * in_);
    }
    WritePanel(WeightFormat::kBF16, rows.data(), in_, columns, to);
  }
  parts_.push_back(packed);
  return absl::OkStatus();
}

absl::Status GroupedMatrix::PackGrouped(const GroupedRows& part) {
  if (part.group % kHalf != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("pack: quantised rows: expected groups of a multiple of %d inputs, got %d",
                        kHalf, part.group));
  }
  const PartForm form = FormOfPart(part);
  if (form.num_supers > 0 && !form.shape.f16) {
    return absl::InvalidArgumentError("pack: quantised rows: expected finite f16 super-scales");
  }
  const int64_t num_panels = (part.rows + kPanelColumns - 1) / kPanelColumns;
  const int64_t order_bytes = Lines(static_cast<int64_t>(part.group_of.size()) * 2);
  absl::StatusOr<char*> memory =
      Allocate(form.BytesOf(num_panels) + PrecisionBytes(Precision::kIndex, order_bytes));
  if (!memory.ok()) return memory.status();
  std::memset(*memory, 0, static_cast<size_t>(num_panels * form.panel_bytes() + order_bytes));
  levels_.push_back(std::make_unique<Levels>());
  std::copy(part.levels.begin(), part.levels.end(), levels_.back()->values);
  char* order = *memory + num_panels * form.panel_bytes();
  if (order_bytes > 0) std::memcpy(order, part.group_of.data(), part.group_of.size() * 2);
  Part packed;
  packed.panels = *memory;
  packed.panel_bytes = form.panel_bytes();
  packed.shape = form.shape;
  packed.shape.group_of = order_bytes > 0 ? reinterpret_cast<const uint16_t*>(order) : nullptr;
  packed.shape.levels = levels_.back()->values;
  packed.groups_offset = form.super_bytes();
  packed.codes_offset = form.super_bytes() + form.group_bytes();
  for (int64_t row = 0; row < part.rows; ++row) {
    WriteRow(part, form, row, *memory + row / kPanelColumns * form.panel_bytes());
  }
  parts_.push_back(packed);
  return absl::OkStatus();
}

GroupedMatrix::Panel GroupedMatrix::PanelAt(int64_t index) const {
  auto part = parts_.begin();
  while (part + 1 != parts_.end() && part[1].first_panel <= index) ++part;
  const int64_t at = index - part->first_panel;
  const char* memory = part->panels + at * part->panel_bytes;
  Panel panel;
  panel.first_column = part->first_column + at * kPanelColumns;
  panel.grouped = part->shape;
  panel.grouped.columns = std::min(kPanelColumns, part->rows - at * kPanelColumns);
  if (part->bf16) {
    panel.bf16 = memory;
    return panel;
  }
  if (part->groups_offset > 0) panel.grouped.supers = reinterpret_cast<const uint16_t*>(memory);
  panel.grouped.groups = memory + part->groups_offset;
  panel.grouped.codes = reinterpret_cast<const uint32_t*>(memory + part->codes_offset);
  return panel;
}

const char* GroupedMatrix::Bf16Panel(const Panel& panel) const {
  if (panel.bf16 != nullptr) return panel.bf16;
  char* out = PanelScratch().Reserve(PanelBytes(WeightFormat::kBF16, in_, kPanelColumns) + 64);
  decoders_.panel(panel.grouped, reinterpret_cast<uint16_t*>(out));
  return out;
}

IntegerScaling GroupedMatrix::ScalingOf(const Panel& panel) const {
  const GroupedPanel& grouped = panel.grouped;
  IntegerScaling scaling;
  scaling.blocks_per_group = grouped.halves_per_group / 2;
  scaling.zero = static_cast<int32_t>(grouped.zero);
  if (grouped.supers == nullptr && !grouped.has_zero) {
    const int64_t plane_bytes = kPanelColumns * (grouped.f16 ? 2 : 4);
    scaling.scales = grouped.groups;
    if (grouped.has_minimum) scaling.minima = grouped.groups + plane_bytes;
    scaling.group_bytes = grouped.planes * plane_bytes;
    scaling.f16 = grouped.f16;
    return scaling;
  }
  if (grouped.has_zero) scaling.zero = grouped.bits == 8 ? 128 : 0;
  const int64_t numbers = grouped.num_groups * kPanelColumns;
  auto* scales = reinterpret_cast<float*>(PanelScratch().Reserve(2 * numbers * 4));
  float* minima = grouped.has_zero || grouped.has_minimum ? scales + numbers : nullptr;
  decoders_.scaling(grouped, static_cast<float>(scaling.zero), scales, minima);
  scaling.scales = reinterpret_cast<const char*>(scales);
  scaling.minima = reinterpret_cast<const char*>(minima);
  scaling.group_bytes = kPanelColumns * 4;
  return scaling;
}

int64_t GroupedMatrix::PanelOfRow(int64_t row) const {
  auto part = parts_.begin();
  while (part + 1 != parts_.end() && part[1].first_column <= row) ++part;
  return part->first_panel + (row - part->first_column) / kPanelColumns;
}

void GroupedMatrix::UnpackRow(int64_t row, float* out) const {
  const Panel panel = PanelAt(PanelOfRow(row));
  const int64_t column = row - panel.first_column;
  if (panel.bf16 != nullptr) {
    return UnpackBf16Column(panel.bf16, in_, panel.grouped.columns, column, out);
  }
  for (int64_t k = 0; k < in_; ++k) {
    const float value = ValueOf(panel.grouped, k, column);
    out[k] = integers_ ? value : FromBf16(ToBf16(value));
  }
}

}  // namespace polyad::cpu
