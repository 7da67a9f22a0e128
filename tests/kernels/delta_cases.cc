#include "tests/kernels/delta_cases.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/api/delta_check.h"
#include "tests/kernels/op_inputs.h"

namespace polyad::test {
namespace {

constexpr int64_t kRows = 6;
constexpr int64_t kOtherColumns = 3;  // of y, beside the op's
constexpr float kRowScales[] = {0.5f, 1.75f};
constexpr int32_t kIds[kRows] = {0, 5, 8, 2, 10, 1};

std::vector<float> Magnitudes(std::vector<float> values) {
  for (float& value : values) value = std::abs(value);
  return values;
}

// What a norm may give of x: centred, of deviation 1, times a weight and plus a bias of up to 3.
std::vector<float> NormedMagnitudes(const std::vector<float>& x, int64_t cols) {
  std::vector<float> normed = x;
  for (auto row = normed.begin(); row != normed.end(); row += cols) {
    float mean = 0;
    for (auto at = row; at != row + cols; ++at) mean += *at / static_cast<float>(cols);
    float square = 0;
    for (auto at = row; at != row + cols; ++at) square += (*at - mean) * (*at - mean);
    const float inverse = 1 / std::sqrt(square / static_cast<float>(cols));
    for (auto at = row; at != row + cols; ++at) *at = 3 * std::abs(*at - mean) * inverse + 3;
  }
  return normed;
}

// Rows [0, 2), [2, 3) and [4, 6) are the op's, with several weights; row 3 is nobody's.
class DeltaWork {
 public:
  DeltaWork(Backend& backend, const DeltaSpec& spec, bool magnitudes)
      : backend_(backend),
        stage_(spec.stage),
        tensors_(magnitudes),
        op_(spec.make(tensors_)),
        widths_(WidthsOf(spec)),
        x_values_(RandomValues(kRows * widths_.in, 60)),
        y_values_(RandomValues(kRows * OutputColumns(), 61)),
        x_(backend, kRows, widths_.in),
        y_(kRows, OutputColumns()) {
    if (magnitudes) {
      x_values_ = spec.norms_input ? NormedMagnitudes(x_values_, widths_.in)
                                   : Magnitudes(std::move(x_values_));
      y_values_ = Magnitudes(std::move(y_values_));
    }
    PackShare share;
    packed_ = *backend.PackDelta(op_, share);
    segments_ = {{0, 2, FirstColumn(), packed_.get()},
                 {2, 3, FirstColumn(), packed_.get(), 0.25f},
                 {4, 6, FirstColumn(), packed_.get(), 1.5f, kRowScales}};
  }

  void Run() {
    x_ = ActivationBuffer(backend_, kRows, widths_.in, x_values_);
    y_.values = y_values_;
    switch (stage_) {
      case DeltaStage::kApply:
        return backend_.Apply(segments_, x_.rows(), y_.view());
      case DeltaStage::kInput:
        return backend_.TransformInput(segments_, x_.rows());
      case DeltaStage::kOutput:
        return backend_.TransformOutput(segments_, y_.view());
      case DeltaStage::kEmbedding:
        return backend_.TransformEmbedding(segments_, kIds, y_.view());
    }
  }
  std::vector<double> Output() const {
    return stage_ == DeltaStage::kInput ? x_.Values() : y_.Values();
  }

 private:
  int64_t FirstColumn() const {
    return stage_ == DeltaStage::kApply || stage_ == DeltaStage::kOutput ? 1 : 0;
  }
  int64_t OutputColumns() const {
    return widths_.out + (stage_ == DeltaStage::kEmbedding ? 0 : kOtherColumns);
  }

  Backend& backend_;
  const DeltaStage stage_;
  DeltaTensors tensors_;
  const DeltaOp op_;
  const DeltaWidths widths_;
  std::vector<float> x_values_;
  std::vector<float> y_values_;
  ActivationBuffer x_;
  FloatBuffer y_;
  std::unique_ptr<PackedDelta> packed_;
  std::vector<DeltaSegment> segments_;
};

class DeltaRun final : public OpRun {
 public:
  DeltaRun(Backend& backend, DeltaSpec spec)
      : backend_(backend), spec_(std::move(spec)), work_(backend, spec_, /*magnitudes=*/false) {}
  void Run() override { work_.Run(); }
  std::vector<double> Output() const override { return work_.Output(); }

  // Sums in fp32 are good to a few units of the sum of their terms' magnitudes. In auto mode some
  // factors round to bf16, and an input that was changed does, in both backends.
  std::vector<double> Tolerance() const override {
    DeltaWork magnitudes(backend_, spec_, /*magnitudes=*/true);
    magnitudes.Run();
    const std::vector<double> terms = magnitudes.Output();
    std::vector<double> tolerance = Output();
    for (size_t i = 0; i < tolerance.size(); ++i) {
      const double stored =
          spec_.stage == DeltaStage::kInput ? RoundingOf(backend_, tolerance[i]) : 0.0;
      tolerance[i] = stored + (8 * kEps32 + 1.2 * Rounded()) * terms[i];
    }
    return tolerance;
  }
  double NormTolerance() const override {
    return Rounded() > 0 ? Rounded() : std::numeric_limits<double>::infinity();
  }

 private:
  double Rounded() const {
    return backend_.activation_dtype() == DType::kBF16 ? spec_.roundings * kEps16 : 0.0;
  }

  Backend& backend_;
  const DeltaSpec spec_;
  DeltaWork work_;
};

class MoveRun final : public OpRun {
 public:
  MoveRun(Backend& backend, int64_t rows, int64_t cols)
      : backend_(backend),
        cols_(cols),
        from_(rows, 2 * cols, RandomValues(rows * 2 * cols, 62)),
        copied_(rows, 2 * cols),
        sums_(rows, 2 * cols),
        converted_(backend, rows, 2 * cols),
        half_(backend, rows, 2 * cols) {}

  // Into the right half, from the left.
  void Run() override {
    copied_.values.assign(copied_.values.size(), 5.0f);
    sums_.values.assign(sums_.values.size(), 0.1f);
    converted_ = ActivationBuffer(backend_, copied_.rows, 2 * cols_, copied_.values);
    half_ = ActivationBuffer(backend_, copied_.rows, 2 * cols_, copied_.values);
    const FloatRows left = from_.view().Columns(0, cols_);
    backend_.Copy(left, copied_.view().Columns(cols_, cols_));
    backend_.Zero(copied_.view().Slice(0, 1).Columns(0, cols_));
    backend_.Accumulate(left, sums_.view().Columns(cols_, cols_));
    backend_.Convert(sums_.view().Columns(cols_, cols_), RightHalf(converted_));
    backend_.Copy(RightHalf(converted_), RightHalf(half_));
  }
  std::vector<double> Output() const override {
    std::vector<double> values = copied_.Values();
    for (const std::vector<double>& more : {sums_.Values(), converted_.Values(), half_.Values()}) {
      values.insert(values.end(), more.begin(), more.end());
    }
    return values;
  }
  // One sum or one rounding has one right answer.
  std::vector<double> Tolerance() const override {
    return std::vector<double>(4 * copied_.values.size(), 0.0);
  }

 private:
  ActivationRows RightHalf(ActivationBuffer& buffer) const {
    ActivationRows rows = buffer.rows();
    rows.data = static_cast<char*>(rows.data) + cols_ * InfoOf(rows.dtype).block_bytes;
    rows.cols = cols_;
    return rows;
  }

  Backend& backend_;
  const int64_t cols_;
  FloatBuffer from_;
  FloatBuffer copied_;
  FloatBuffer sums_;
  ActivationBuffer converted_;
  ActivationBuffer half_;
};

}  // namespace

OpCase DeltaCase(const DeltaSpec& spec) {
  DeltaTensors tensors(false);
  OpCase out;
  out.name = absl::StrFormat("delta_%s/rows:%d", spec.name, kRows);
  out.flops = static_cast<double>((kRows - 1) * FlopsPerToken(spec.make(tensors)));
  out.make = [spec](Backend& backend) { return std::make_unique<DeltaRun>(backend, spec); };
  return out;
}

OpCase MoveCase(int64_t rows, int64_t cols) {
  OpCase out;
  out.name = absl::StrFormat("move/rows:%d/cols:%d", rows, cols);
  out.make = [=](Backend& backend) { return std::make_unique<MoveRun>(backend, rows, cols); };
  return out;
}

}  // namespace polyad::test
