#pragma once

// Quantised weights kept in their own precision (grouped_panel.h draws them) and the product over
// them: each panel is decoded to bf16 into cache by the thread that multiplies it, and met there by
// every row of the batch through the bf16 kernels. Parts stacked along `out` keep their own form:
// each starts a panel of its own, and floating-point parts among them are bf16 panels. Immutable
// once packed, any thread.

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/grouped_panel.h"

namespace polyad::cpu {

// Whether parts of these types are packed here: grouped rows, or block types among others.
bool PacksGrouped(std::span<const TensorView> parts);

class GroupedMatrix {
 public:
  // INVALID_ARGUMENT for inputs that are no multiple of 32, or groups no multiple of 16.
  static absl::StatusOr<std::shared_ptr<const GroupedMatrix>> Pack(
      std::span<const TensorView> parts, DecodeGrouped decode);

  struct Panel {
    int64_t first_column = 0;
    GroupedPanel grouped;
    const char* bf16 = nullptr;  // in place of grouped.codes: stored ready
  };

  int64_t out() const { return out_; }
  int64_t in() const { return in_; }
  int64_t bytes() const { return bytes_; }
  const std::vector<Panel>& panels() const { return panels_; }

  int64_t PanelOfRow(int64_t row) const;  // its index

  // The panel as bf16: in place, or decoded into scratch of the calling thread.
  const char* Bf16Panel(const Panel& panel) const;
  void UnpackRow(int64_t row, float* out) const;  // rounded to bf16, as products see it

 private:
  struct Levels {
    alignas(64) float values[16];
  };

  absl::Status PackPart(const TensorView& part);
  absl::Status PackFloats(const TensorView& part);
  absl::Status PackGrouped(const GroupedRows& part);
  absl::StatusOr<char*> Allocate(int64_t bytes);

  int64_t out_ = 0;
  int64_t in_ = 0;
  int64_t bytes_ = 0;
  DecodeGrouped decode_ = nullptr;
  std::vector<Panel> panels_;
  std::vector<std::shared_ptr<char>> memory_;
  std::vector<std::unique_ptr<Levels>> levels_;
};

}  // namespace polyad::cpu
