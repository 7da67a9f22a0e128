#include "tests/kernels/row_cases.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "tests/kernels/op_inputs.h"

namespace polyad::test {
namespace {

class NormRun final : public OpRun {
 public:
  NormRun(Backend& backend, NormKind kind, int64_t rows, int64_t cols, bool bias)
      : backend_(backend),
        x_(rows, cols, RandomValues(rows * cols, 1)),
        y_(backend, rows, cols),
        weight_(RandomValues(cols, 2)),
        bias_(RandomValues(bias ? cols : 0, 3)) {
    args_.kind = kind;
    args_.weight = weight_.data();
    if (bias) args_.bias = bias_.data();
  }
  void Run() override { backend_.Norm(args_, x_.view(), y_.rows()); }
  std::vector<double> Output() const override { return y_.Values(); }

  // The scale 1 / sqrt(mean square + eps) carries the relative error of a mean of squares, twice
  // that of centred values near 0; every output element is one product and one sum of it.
  std::vector<double> Tolerance() const override {
    std::vector<double> tolerance = y_.Values();
    for (size_t i = 0; i < tolerance.size(); ++i) {
      const size_t col = i % weight_.size();
      const float* row = x_.values.data() + i / weight_.size() * weight_.size();
      const double rms = NormOf(row, x_.cols) / std::sqrt(static_cast<double>(x_.cols));
      const double spread = Spread(row);
      const double term = std::abs(weight_[col]) * (std::abs(x_.values[i]) + rms) / spread;
      tolerance[i] =
          RoundingOf(backend_, tolerance[i]) + 16 * kEps32 *
                                                   (term * (1 + rms * rms / spread / spread) +
                                                    (bias_.empty() ? 0.0 : std::abs(bias_[col])));
    }
    return tolerance;
  }

 private:
  // The divisor of a row in exact arithmetic.
  double Spread(const float* row) const {
    double mean = 0;
    for (int64_t i = 0; i < x_.cols && args_.kind == NormKind::kLayer; ++i)
      mean += row[i] / static_cast<double>(x_.cols);
    double square = 0;
    for (int64_t i = 0; i < x_.cols; ++i)
      square += (row[i] - mean) * (row[i] - mean) / static_cast<double>(x_.cols);
    return std::sqrt(square + static_cast<double>(args_.eps));
  }

  Backend& backend_;
  mutable FloatBuffer x_;
  ActivationBuffer y_;
  std::vector<float> weight_;
  std::vector<float> bias_;
  NormArgs args_;
};

class ActivateRun final : public OpRun {
 public:
  ActivateRun(Backend& backend, ActivationKind kind, bool gated, int64_t rows, int64_t cols)
      : backend_(backend),
        kind_(kind),
        gated_(gated),
        x_(rows, gated ? 2 * cols : cols, RandomValues(rows * cols * (gated ? 2 : 1), 4, 6.0f)),
        y_(backend, rows, cols) {}
  void Run() override { backend_.Activate(kind_, gated_, x_.view(), y_.rows()); }
  std::vector<double> Output() const override { return y_.Values(); }

  // |act(x)| <= |x|, or 1 for the sigmoid alone; the sigmoid and the exponential are good to a few
  // units of it, erf to 1.5e-7.
  std::vector<double> Tolerance() const override {
    std::vector<double> tolerance = y_.Values();
    const size_t cols = tolerance.size() / static_cast<size_t>(x_.rows);
    for (size_t i = 0; i < tolerance.size(); ++i) {
      const float* row = x_.values.data() + i / cols * static_cast<size_t>(x_.cols);
      const double gate = gated_ ? std::abs(row[cols + i % cols]) : 1.0;
      const double unit = kind_ == ActivationKind::kGeluErf ? 1.5e-7 : 8 * kEps32;
      const double size = kind_ == ActivationKind::kSigmoid ? 1.0 : std::abs(row[i % cols]);
      tolerance[i] = RoundingOf(backend_, tolerance[i]) + 2 * unit * size * gate;
    }
    return tolerance;
  }

 private:
  Backend& backend_;
  const ActivationKind kind_;
  const bool gated_;
  FloatBuffer x_;
  ActivationBuffer y_;
};

class ArgMaxRun final : public OpRun {
 public:
  ArgMaxRun(Backend& backend, int64_t rows, int64_t cols)
      : backend_(backend),
        x_(rows, cols, RandomValues(rows * cols, 5)),
        best_(static_cast<size_t>(rows)) {
    // bf16 logits tie often; the last row ties everywhere.
    std::fill_n(x_.view().Row(rows - 1), cols, -2.0f);
  }
  void Run() override { backend_.ArgMax(x_.view(), best_); }
  std::vector<double> Output() const override {
    std::vector<double> values;
    for (const TokenScore& score : best_) {
      values.push_back(score.token_id);
      values.push_back(score.logit);
    }
    return values;
  }
  std::vector<double> Tolerance() const override {
    return std::vector<double>(2 * best_.size(), 0.0);
  }

 private:
  Backend& backend_;
  FloatBuffer x_;
  std::vector<TokenScore> best_;
};

class GatherRun final : public OpRun {
 public:
  GatherRun(Backend& backend, int64_t rows, int64_t cols)
      : backend_(backend),
        x_(rows, cols, RandomValues(rows * cols, 6)),
        out_(3, cols),
        picked_{static_cast<int32_t>(rows - 1), 0, static_cast<int32_t>(rows - 1)} {}
  void Run() override { backend_.GatherRows(x_.view(), picked_, out_.view()); }
  std::vector<double> Output() const override { return out_.Values(); }
  std::vector<double> Tolerance() const override {
    return std::vector<double>(out_.values.size(), 0.0);
  }

 private:
  Backend& backend_;
  FloatBuffer x_;
  FloatBuffer out_;
  std::vector<int32_t> picked_;
};

}  // namespace

const char* NameOf(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::kSilu:
      return "silu";
    case ActivationKind::kGeluTanh:
      return "gelu_tanh";
    case ActivationKind::kGeluErf:
      return "gelu_erf";
    case ActivationKind::kRelu:
      return "relu";
    case ActivationKind::kTanh:
      return "tanh";
    case ActivationKind::kQuickGelu:
      return "quick_gelu";
    case ActivationKind::kLeakyRelu:
      return "leaky_relu";
    case ActivationKind::kSigmoid:
      return "sigmoid";
    case ActivationKind::kIdentity:
      return "identity";
  }
  return "?";
}

OpCase NormCase(NormKind kind, int64_t rows, int64_t cols, bool bias) {
  OpCase out;
  out.name = absl::StrFormat("%s_norm%s/rows:%d/cols:%d", kind == NormKind::kRms ? "rms" : "layer",
                             bias ? "_bias" : "", rows, cols);
  out.flops = static_cast<double>(rows * cols) * 4;
  out.bytes = static_cast<double>(rows * cols) * 6;
  out.make = [=](Backend& backend) {
    return std::make_unique<NormRun>(backend, kind, rows, cols, bias);
  };
  return out;
}

OpCase ActivateCase(ActivationKind kind, bool gated, int64_t rows, int64_t cols) {
  OpCase out;
  out.name =
      absl::StrFormat("%s%s/rows:%d/cols:%d", NameOf(kind), gated ? "_gated" : "", rows, cols);
  out.flops = static_cast<double>(rows * cols) * 20;
  out.bytes = static_cast<double>(rows * cols) * (gated ? 10 : 6);
  out.make = [=](Backend& backend) {
    return std::make_unique<ActivateRun>(backend, kind, gated, rows, cols);
  };
  return out;
}

OpCase ArgMaxCase(int64_t rows, int64_t cols) {
  OpCase out;
  out.name = absl::StrFormat("argmax/rows:%d/cols:%d", rows, cols);
  out.bytes = static_cast<double>(rows * cols) * 4;
  out.make = [=](Backend& backend) { return std::make_unique<ArgMaxRun>(backend, rows, cols); };
  return out;
}

OpCase GatherCase(int64_t rows, int64_t cols) {
  OpCase out;
  out.name = absl::StrFormat("gather/rows:%d/cols:%d", rows, cols);
  out.make = [=](Backend& backend) { return std::make_unique<GatherRun>(backend, rows, cols); };
  return out;
}

}  // namespace polyad::test
