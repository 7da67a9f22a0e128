#pragma once

// Quantised weights kept in their own precision (grouped_panel.h draws them). Integer codes meet
// rows quantised to int8 as they are, where inputs may be; else each panel is decoded to bf16 into
// cache by the thread that multiplies it, and met there by every row of the batch through the bf16
// kernels. Parts stacked along `out` keep their own form: each starts a panel of its own, and
// floating-point parts among them are bf16 panels. Immutable once packed, any thread.

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/grouped_panel.h"

namespace polyad::cpu {

// Whether parts of these types are packed here: any of them is quantised.
bool PacksGrouped(std::span<const TensorView> parts);

struct GroupedDecoders {
  DecodeGrouped panel = nullptr;
  DecodeScaling scaling = nullptr;
};

class GroupedMatrix {
 public:
  // INVALID_ARGUMENT for inputs that are no multiple of 32, or groups no multiple of 16.
  // `int8_inputs`: products may round inputs to int8; integers() says whether they do.
  static absl::StatusOr<std::shared_ptr<const GroupedMatrix>> Pack(
      std::span<const TensorView> parts, const GroupedDecoders& decoders, bool int8_inputs);

  struct Panel {
    int64_t first_column = 0;
    GroupedPanel grouped;
    const char* bf16 = nullptr;  // in place of grouped.codes: stored ready
  };

  int64_t out() const { return out_; }
  int64_t in() const { return in_; }
  const PrecisionBytes& bytes() const { return bytes_; }
  int64_t num_panels() const { return num_panels_; }
  Panel PanelAt(int64_t index) const;

  int64_t PanelOfRow(int64_t row) const;       // its index
  bool integers() const { return integers_; }  // products take codes and int8 inputs

  // The panel as bf16: in place, or decoded into scratch of the calling thread.
  const char* Bf16Panel(const Panel& panel) const;
  // What a panel's codes stand for, where integers(); in scratch of the calling thread.
  IntegerScaling ScalingOf(const Panel& panel) const;
  void UnpackRow(int64_t row, float* out) const;  // as products see it: bf16 unless integers()

 private:
  struct Levels {
    alignas(64) float values[16];
  };

  // The panels of one part of the stack lie one after the other. A product makes a panel of these
  // few numbers, and not of a list as long as the panels are many.
  struct Part {
    int64_t first_panel = 0;
    int64_t first_column = 0;
    int64_t rows = 0;
    const char* panels = nullptr;
    int64_t panel_bytes = 0;
    bool bf16 = false;
    GroupedPanel shape;         // where not: of all panels
    int64_t groups_offset = 0;  // in a panel
    int64_t codes_offset = 0;
  };

  absl::Status PackPart(const TensorView& part);
  absl::Status PackFloats(const TensorView& part);
  absl::Status PackGrouped(const GroupedRows& part);
  absl::StatusOr<char*> Allocate(const PrecisionBytes& bytes);

  int64_t out_ = 0;
  int64_t in_ = 0;
  PrecisionBytes bytes_;
  GroupedDecoders decoders_;
  bool integers_ = false;
  int64_t num_panels_ = 0;
  std::vector<Part> parts_;
  std::vector<std::shared_ptr<char>> memory_;
  std::vector<std::unique_ptr<Levels>> levels_;
};

}  // namespace polyad::cpu
