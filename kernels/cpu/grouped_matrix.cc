#include "kernels/cpu/grouped_matrix.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "absl/strings/str_format.h"
#include "kernels/cpu/number_format.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/packed_memory.h"
#include "kernels/cpu/round_up.h"
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

// The word that holds input k of a column of a panel, and the code's place in it.
struct CodePlace {
  int64_t word;
  int shift;
};

template <int kBits>
CodePlace PlaceOf(int64_t k, int64_t column) {
  constexpr int64_t per_word = 32 / kBits;
  constexpr int64_t words = kDepthBlock / per_word;  // of a block, for a column
  const int64_t tile = k / kDepthBlock * 2 + column / kTileColumns;
  const int64_t row = tile * words + k % kDepthBlock / per_word;
  return {row * kTileColumns + column % kTileColumns, static_cast<int>(k % per_word * kBits)};
}

template <int kBits>
void WriteCodes(const uint8_t* codes, int64_t depth, int64_t column, uint32_t* to) {
  for (int64_t k = 0; k < depth; ++k) {
    const CodePlace place = PlaceOf<kBits>(k, column);
    to[place.word] |= (codes[k] & ((1u << kBits) - 1)) << place.shift;
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

float ValueOf(const GroupedPanel& panel, int64_t k, int64_t column) {
  const CodePlace place = panel.bits == 4 ? PlaceOf<4>(k, column) : PlaceOf<8>(k, column);
  const uint32_t mask = panel.bits == 4 ? 15u : 255u;
  const uint32_t code = (panel.codes[place.word] >> place.shift) & mask;
  const int64_t group =
      panel.group_of != nullptr ? panel.group_of[k] : k / kHalf / panel.halves_per_group;
  const auto plane = [&](int64_t index) {
    const int64_t at = (group * panel.planes + index) * kPanelColumns + column;
    if (panel.supers != nullptr) {
      const int64_t super = group / panel.groups_per_super * panel.planes + index;
      return FromF16(panel.supers[super * kPanelColumns + column]) *
             static_cast<float>(reinterpret_cast<const int8_t*>(panel.groups)[at]);
    }
    if (panel.f16) return FromF16(reinterpret_cast<const uint16_t*>(panel.groups)[at]);
    return reinterpret_cast<const float*>(panel.groups)[at];
  };
  if (panel.kind == CodeKind::kLevels) return plane(0) * panel.levels[code];
  if (panel.kind == CodeKind::kFloat8) {
    return plane(0) * Float8ToFloat(static_cast<uint8_t>(code));
  }
  const float value =
      plane(0) * (static_cast<float>(code) - (panel.has_zero ? plane(1) : panel.zero));
  return panel.has_minimum ? value + plane(panel.planes - 1) : value;
}

Scratch& PanelScratch() {
  static thread_local Scratch scratch;
  return scratch;
}

}  // namespace

bool PacksGrouped(std::span<const TensorView> parts) {
  bool grouped = false;
  bool blocks = false;
  bool mixed = false;
  for (const TensorView& part : parts) {
    grouped |= part.dtype == DType::kGrouped;
    blocks |= InfoOf(part.dtype).block_elements > 1;
    mixed |= part.dtype != parts[0].dtype;
  }
  return grouped || (blocks && mixed);
}

absl::StatusOr<std::shared_ptr<const GroupedMatrix>> GroupedMatrix::Pack(
    std::span<const TensorView> parts, DecodeGrouped decode) {
  auto matrix = std::make_shared<GroupedMatrix>();
  matrix->decode_ = decode;
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

absl::StatusOr<char*> GroupedMatrix::Allocate(int64_t bytes) {
  absl::StatusOr<std::shared_ptr<char>> memory = AllocatePacked(bytes);
  if (!memory.ok()) return memory.status();
  memory_.push_back(*std::move(memory));
  bytes_ += bytes;
  return memory_.back().get();
}

absl::Status GroupedMatrix::PackPart(const TensorView& part) {
  const int64_t first = out_;
  absl::Status status;
  if (part.dtype == DType::kGrouped) {
    status = PackGrouped(*part.grouped);
  } else if (InfoOf(part.dtype).block_elements > 1) {
    status = PackGrouped(FromBlocks(part));
  } else {
    status = PackFloats(part);
  }
  out_ = first + part.rows;
  return status;
}

absl::Status GroupedMatrix::PackFloats(const TensorView& part) {
  absl::StatusOr<char*> memory = Allocate(MatrixBytes(WeightFormat::kBF16, in_, part.rows));
  if (!memory.ok()) return memory.status();
  std::vector<float> rows(static_cast<size_t>(in_ * kPanelColumns));
  char* to = *memory;
  for (int64_t first = 0; first < part.rows; first += kPanelColumns) {
    Panel panel;
    panel.first_column = out_ + first;
    panel.grouped.columns = std::min(kPanelColumns, part.rows - first);
    panel.bf16 = to;
    for (int64_t column = 0; column < panel.grouped.columns; ++column) {
      DecodeRow(part, first + column, rows.data() + column * in_);
    }
    WritePanel(WeightFormat::kBF16, rows.data(), in_, panel.grouped.columns, to);
    to += PanelBytes(WeightFormat::kBF16, in_, panel.grouped.columns);
    panels_.push_back(panel);
  }
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
  absl::StatusOr<char*> memory = Allocate(num_panels * form.panel_bytes() + order_bytes);
  if (!memory.ok()) return memory.status();
  std::memset(*memory, 0, static_cast<size_t>(num_panels * form.panel_bytes() + order_bytes));
  levels_.push_back(std::make_unique<Levels>());
  std::copy(part.levels.begin(), part.levels.end(), levels_.back()->values);
  char* order = *memory + num_panels * form.panel_bytes();
  if (order_bytes > 0) std::memcpy(order, part.group_of.data(), part.group_of.size() * 2);
  for (int64_t index = 0; index < num_panels; ++index) {
    char* supers = *memory + index * form.panel_bytes();
    char* groups = supers + form.super_bytes();
    auto* codes = reinterpret_cast<uint32_t*>(groups + form.group_bytes());
    Panel panel{out_ + index * kPanelColumns, form.shape, nullptr};
    panel.grouped.columns = std::min(kPanelColumns, part.rows - index * kPanelColumns);
    panel.grouped.groups = groups;
    panel.grouped.supers =
        form.num_supers > 0 ? reinterpret_cast<const uint16_t*>(supers) : nullptr;
    panel.grouped.codes = codes;
    panel.grouped.group_of = order_bytes > 0 ? reinterpret_cast<const uint16_t*>(order) : nullptr;
    panel.grouped.levels = levels_.back()->values;
    for (int64_t column = 0; column < panel.grouped.columns; ++column) {
      const int64_t row = index * kPanelColumns + column;
      WritePlanes(form.supers, {row, column, form.num_supers, 2}, supers);
      WritePlanes(form.groups, {row, column, form.num_groups, form.element_bytes}, groups);
      const uint8_t* from = part.codes.data() + row * part.cols;
      if (part.bits == 4) {
        WriteCodes<4>(from, part.cols, column, codes);
      } else {
        WriteCodes<8>(from, part.cols, column, codes);
      }
    }
    panels_.push_back(panel);
  }
  return absl::OkStatus();
}

const char* GroupedMatrix::Bf16Panel(const Panel& panel) const {
  if (panel.bf16 != nullptr) return panel.bf16;
  char* out = PanelScratch().Reserve(PanelBytes(WeightFormat::kBF16, in_, kPanelColumns) + 64);
  decode_(panel.grouped, reinterpret_cast<uint16_t*>(out));
  return out;
}

int64_t GroupedMatrix::PanelOfRow(int64_t row) const {
  const auto after = std::upper_bound(
      panels_.begin(), panels_.end(), row,
      [](int64_t wanted, const Panel& panel) { return wanted < panel.first_column; });
  return after - panels_.begin() - 1;
}

void GroupedMatrix::UnpackRow(int64_t row, float* out) const {
  const Panel& panel = panels_[static_cast<size_t>(PanelOfRow(row))];
  const int64_t column = row - panel.first_column;
  if (panel.bf16 != nullptr) {
    return UnpackBf16Column(panel.bf16, in_, panel.grouped.columns, column, out);
  }
  for (int64_t k = 0; k < in_; ++k) out[k] = FromBf16(ToBf16(ValueOf(panel.grouped, k, column)));
}

}  // namespace polyad::cpu
