#pragma once

// Weights in the CPU backend's layout (gemm_kernels.h draws it): column panels that a kernel reads
// front to back. A CpuMatrix is immutable once packed and may be read by any thread.

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/grouped_matrix.h"
#include "kernels/cpu/thread_pool.h"

namespace polyad::cpu {

// kGrouped meets bf16 inputs, kIntegers int8 ones; both are GroupedMatrix.
enum class WeightFormat { kF32, kBF16, kGrouped, kIntegers };

// Of fp32 and bf16; the others' panels differ (grouped_matrix.h). Bytes of one panel of `columns`
// (<= 32) columns.
int64_t PanelBytes(WeightFormat format, int64_t in, int64_t columns);
// Bytes of all panels of an out x in matrix.
int64_t MatrixBytes(WeightFormat format, int64_t in, int64_t out);
constexpr Precision PrecisionOf(WeightFormat format) {
  return format == WeightFormat::kF32 ? Precision::kF32 : Precision::kBF16;
}

// The kernels of an instruction set.
const GemmKernels& KernelsOf(Isa isa);
PanelKernel KernelOf(const GemmKernels& kernels, WeightFormat format);  // of fp32 and bf16 panels

// One stored row as floats; dtype must be f32, f16, bf16, Q8_0, Q4_0, Q4_1 or grouped rows.
void DecodeRow(const TensorView& tensor, int64_t row, float* out);

// Writes an fp32 or bf16 panel from `columns` rows of `in` floats, one after the other.
void WritePanel(WeightFormat format, const float* rows, int64_t in, int64_t columns, char* panel);

// Column `column` of a bf16 panel of `columns`, as floats: out[0, in).
void UnpackBf16Column(const char* panel, int64_t in, int64_t columns, int64_t column, float* out);

class CpuMatrix final : public PackedMatrix {
 public:
  CpuMatrix(WeightFormat format, int64_t out, int64_t in, const GemmKernels& kernels,
            std::shared_ptr<char> panels)
      : format_(format), out_(out), in_(in), kernels_(&kernels), panels_(std::move(panels)) {}

  CpuMatrix(std::shared_ptr<const GroupedMatrix> grouped, const GemmKernels& kernels)
      : format_(grouped->integers() ? WeightFormat::kIntegers : WeightFormat::kGrouped),
        out_(grouped->out()),
        in_(grouped->in()),
        kernels_(&kernels),
        grouped_(std::move(grouped)) {}

  int64_t out() const override { return out_; }
  int64_t in() const override { return in_; }
  PrecisionBytes bytes() const override {
    if (grouped_ != nullptr) return grouped_->bytes();
    return {PrecisionOf(format_), MatrixBytes(format_, in_, out_)};
  }

  WeightFormat format() const { return format_; }
  const GemmKernels& kernels() const { return *kernels_; }
  const GroupedMatrix* grouped() const { return grouped_.get(); }  // null for fp32 and bf16
  // Between panels of fp32 and bf16.
  int64_t panel_bytes() const { return PanelBytes(format_, in_, kPanelColumns); }
  int64_t num_panels() const {
    if (grouped_ != nullptr) return grouped_->num_panels();
    return (out_ + kPanelColumns - 1) / kPanelColumns;
  }
  const char* panel(int64_t index) const { return panels_.get() + index * panel_bytes(); }

 private:
  WeightFormat format_;
  int64_t out_;
  int64_t in_;
  const GemmKernels* kernels_;
  std::shared_ptr<char> panels_;
  std::shared_ptr<const GroupedMatrix> grouped_;
};

}  // namespace polyad::cpu
