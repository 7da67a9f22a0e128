#include "kernels/cpu/product_ops.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/cpu/gemm_inputs.h"
#include "kernels/cpu/panel_factor.h"
#include "kernels/cpu/scratch.h"

namespace polyad::cpu {
namespace {

constexpr int64_t kRowsPerPass = 64;  // bounds the middle's scratch; whole tiles of 16 rows

std::vector<float> Kept(std::span<const float> values) { return {values.begin(), values.end()}; }

// factor times the segment's own input rows, to `y` rows of `stride` floats.
void ProductOfInputs(const PanelFactor& factor, const SiteRows& rows, float* y, int64_t stride) {
  PanelTask task = RowsOf(rows.inputs.panels, rows.begin, rows.end);
  factor.Describe(&task);
  task.y = y;
  task.y_stride = stride;
  task.ahead = rows.ahead;
  factor.kernel()(task);
}

// The rows' y += factor times inputs.
void AddProduct(const PanelFactor& factor, PanelTask inputs, const SiteRows& rows) {
  factor.Describe(&inputs);
  inputs.accumulate = true;
  inputs.y = rows.Y(rows.begin);
  inputs.y_stride = rows.y.stride;
  inputs.ahead = rows.ahead;
  factor.kernel()(inputs);
}

template <typename Pass>
void ForEachPass(SiteRows rows, Pass pass) {
  const int64_t end = rows.end;
  for (; rows.begin < end; rows.begin = rows.end) {
    rows.end = std::min(end, rows.begin + kRowsPerPass);
    pass(rows);
  }
}

bool HasWeights(const DeltaSegment& segment) {
  return segment.scale != 1.0f || segment.row_scale != nullptr;
}

// y += outer * (B (weight inner * (A x)))
class CpuLowRank final : public CpuSiteOp {
 public:
  CpuLowRank(const LowRank& op, PanelFactor a, PanelFactor b)
      : CpuSiteOp(op),
        a_(std::move(a)),
        b_(std::move(b)),
        inner_(Kept(op.inner)),
        outer_(Kept(op.outer)) {
    const auto vectors = static_cast<int64_t>((inner_.size() + outer_.size()) * sizeof(float));
    set_bytes(a_.added_bytes + b_.added_bytes + vectors, a_.bytes + b_.bytes);
  }

  const GemmKernels* panel_kernels() const override { return a_.kernels; }
  void ListReads(std::vector<MemoryRange>* reads) const override {
    reads->push_back(a_.reads());
    reads->push_back(b_.reads());
  }

  void Add(const SiteRows& rows) const override {
    ForEachPass(rows, [this](const SiteRows& pass) { AddPass(pass); });
  }

 private:
  void AddPass(const SiteRows& rows) const {
    const int64_t count = rows.end - rows.begin;
    MiddleRows middle(b_, kRowsPerPass, b_.in, WorkerScratch());
    ProductOfInputs(a_, rows, middle.Row(0), middle.stride());
    if (!inner_.empty() || HasWeights(rows.segment)) ScaleMiddle(rows, middle);
    if (outer_.empty()) {
      AddProduct(b_, middle.AsInputs(count), rows);
      return;
    }
    AddScaledProduct(rows, middle.AsInputs(count));
  }

  void ScaleMiddle(const SiteRows& rows, MiddleRows& middle) const {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      float* h = middle.Row(row - rows.begin);
      const float weight = rows.Weight(row);
      for (int64_t r = 0; r < b_.in; ++r) {
        h[r] *= inner_.empty() ? weight : weight * inner_[static_cast<size_t>(r)];
      }
    }
  }

  void AddScaledProduct(const SiteRows& rows, PanelTask inputs) const {
    const int64_t count = rows.end - rows.begin;
    auto* wide = reinterpret_cast<float*>(SinkScratch().Reserve(count * b_.out * 4));
    b_.Describe(&inputs);
    inputs.y = wide;
    inputs.y_stride = b_.out;
    inputs.ahead = rows.ahead;
    b_.kernel()(inputs);
    for (int64_t row = 0; row < count; ++row) {
      float* y = rows.Y(rows.begin + row);
      for (int64_t o = 0; o < b_.out; ++o) {
        y[o] += outer_[static_cast<size_t>(o)] * wide[row * b_.out + o];
      }
    }
  }

  PanelFactor a_;
  PanelFactor b_;
  std::vector<float> inner_;
  std::vector<float> outer_;
};

// y[rows[n]] += weight V[n] . x, or every row where none are named
class CpuDense final : public CpuSiteOp {
 public:
  CpuDense(const DeltaOp& op, std::span<const int32_t> rows, PanelFactor matrix)
      : CpuSiteOp(op), rows_(rows.begin(), rows.end()), matrix_(std::move(matrix)) {
    set_bytes(matrix_.added_bytes + static_cast<int64_t>(rows_.size() * sizeof(int32_t)),
              matrix_.bytes);
  }

  const GemmKernels* panel_kernels() const override { return matrix_.kernels; }
  void ListReads(std::vector<MemoryRange>* reads) const override {
    reads->push_back(matrix_.reads());
  }

  void Add(const SiteRows& rows) const override {
    if (rows_.empty() && !HasWeights(rows.segment)) {
      AddProduct(matrix_, RowsOf(rows.inputs.panels, rows.begin, rows.end), rows);
      return;
    }
    ForEachPass(rows, [this](const SiteRows& pass) { AddPass(pass); });
  }

 private:
  void AddPass(const SiteRows& rows) const {
    const int64_t count = rows.end - rows.begin;
    auto* wide = reinterpret_cast<float*>(WorkerScratch().Reserve(count * matrix_.out * 4));
    ProductOfInputs(matrix_, rows, wide, matrix_.out);
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const float* from = wide + (row - rows.begin) * matrix_.out;
      const float weight = rows.Weight(row);
      float* y = rows.Y(row);
      for (int64_t n = 0; n < matrix_.out; ++n) {
        y[rows_.empty() ? n : rows_[static_cast<size_t>(n)]] += weight * from[n];
      }
    }
  }

  std::vector<int32_t> rows_;  // empty: all
  PanelFactor matrix_;
};

float Activated(ActivationKind kind, float x) {
  switch (kind) {
    case ActivationKind::kSilu:
      return x / (1.0f + std::exp(-x));
    case ActivationKind::kGeluTanh:
      return 0.5f * x * (1.0f + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
    case ActivationKind::kGeluErf:
      return 0.5f * x * (1.0f + std::erf(x * 0.70710678f));
    case ActivationKind::kRelu:
      return x > 0.0f ? x : 0.0f;
    case ActivationKind::kTanh:
      return std::tanh(x);
    case ActivationKind::kQuickGelu:
      return x / (1.0f + std::exp(-1.702f * x));
    case ActivationKind::kLeakyRelu:
      return x > 0.0f ? x : 0.01f * x;
    case ActivationKind::kSigmoid:
      return 1.0f / (1.0f + std::exp(-x));
    case ActivationKind::kIdentity:
      return x;
  }
  return x;
}

// y += weight scale * (U act(D norm(x) + d) + u)
class CpuBottleneck final : public CpuSiteOp {
 public:
  CpuBottleneck(const Bottleneck& op, PanelFactor down, PanelFactor up)
      : CpuSiteOp(op),
        down_(std::move(down)),
        up_(std::move(up)),
        activation_(op.activation),
        down_bias_(Kept(op.down_bias)),
        up_bias_(Kept(op.up_bias)),
        scale_(Kept(op.scale)),
        norm_weight_(Kept(op.norm.weight)),
        norm_bias_(Kept(op.norm.bias)),
        norm_eps_(op.norm.eps) {
    const size_t floats = down_bias_.size() + up_bias_.size() + scale_.size() +
                          norm_weight_.size() + norm_bias_.size();
    set_bytes(down_.added_bytes + up_.added_bytes + static_cast<int64_t>(floats * sizeof(float)),
              down_.bytes + up_.bytes);
  }

  const GemmKernels* panel_kernels() const override {
    return norm_weight_.empty() ? down_.kernels : nullptr;
  }
  bool adds_to_input() const override { return true; }
  void ListReads(std::vector<MemoryRange>* reads) const override {
    reads->push_back(down_.reads());
    reads->push_back(up_.reads());
  }

  void Add(const SiteRows& rows) const override {
    ForEachPass(rows, [this](const SiteRows& pass) { AddPass(pass); });
  }

 private:
  void AddPass(const SiteRows& rows) const {
    const int64_t count = rows.end - rows.begin;
    MiddleRows middle(up_, kRowsPerPass, up_.in, WorkerScratch());
    if (norm_weight_.empty()) {
      ProductOfInputs(down_, rows, middle.Row(0), middle.stride());
    } else {
      ProductOfNormed(rows, middle);
    }
    for (int64_t row = 0; row < count; ++row) {
      float* h = middle.Row(row);
      for (int64_t w = 0; w < up_.in; ++w) {
        const float bias = down_bias_.empty() ? 0.0f : down_bias_[static_cast<size_t>(w)];
        h[w] = Activated(activation_, h[w] + bias);
      }
    }
    auto* wide = reinterpret_cast<float*>(SinkScratch().Reserve(count * up_.out * 4));
    PanelTask expand = middle.AsInputs(count);
    up_.Describe(&expand);
    expand.bias = up_bias_.empty() ? nullptr : up_bias_.data();
    expand.y = wide;
    expand.y_stride = up_.out;
    expand.ahead = rows.ahead;
    up_.kernel()(expand);
    for (int64_t row = 0; row < count; ++row) AddScaled(rows, row, wide + row * up_.out);
  }

  void AddScaled(const SiteRows& rows, int64_t row, const float* from) const {
    const float weight = rows.Weight(rows.begin + row);
    float* y = rows.Y(rows.begin + row);
    if (scale_.size() > 1) {
      for (int64_t o = 0; o < up_.out; ++o) {
        y[o] += weight * scale_[static_cast<size_t>(o)] * from[o];
      }
      return;
    }
    const float scale = weight * (scale_.empty() ? 1.0f : scale_[0]);
    for (int64_t o = 0; o < up_.out; ++o) y[o] += scale * from[o];
  }

  void ProductOfNormed(const SiteRows& rows, MiddleRows& middle) const {
    const int64_t count = rows.end - rows.begin;
    MiddleRows normed(down_, count, down_.in, SinkScratch());
    std::vector<float> wide;
    for (int64_t row = 0; row < count; ++row) {
      NormRowOf(WideRow(rows.inputs.x, rows.begin + row, wide), normed.Row(row));
    }
    PanelTask task = normed.AsInputs(count);
    down_.Describe(&task);
    task.y = middle.Row(0);
    task.y_stride = middle.stride();
    task.ahead = rows.ahead;
    down_.kernel()(task);
  }

  void NormRowOf(const float* x, float* y) const {
    const auto n = static_cast<float>(down_.in);
    float mean = 0.0f;
    for (int64_t i = 0; i < down_.in; ++i) mean += x[i];
    mean /= n;
    float square = 0.0f;
    for (int64_t i = 0; i < down_.in; ++i) square += (x[i] - mean) * (x[i] - mean);
    const float inverse = 1.0f / std::sqrt(square / n + norm_eps_);
    for (int64_t i = 0; i < down_.in; ++i) {
      const auto at = static_cast<size_t>(i);
      y[i] =
          (x[i] - mean) * inverse * norm_weight_[at] + (norm_bias_.empty() ? 0.0f : norm_bias_[at]);
    }
  }

  PanelFactor down_;
  PanelFactor up_;
  ActivationKind activation_;
  std::vector<float> down_bias_;
  std::vector<float> up_bias_;
  std::vector<float> scale_;
  std::vector<float> norm_weight_;
  std::vector<float> norm_bias_;
  float norm_eps_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const LowRank& op, const SitePacking& packing) {
  absl::StatusOr<PanelFactor> a = PackFactor(op.a, 1.0f, packing);
  if (!a.ok()) return a.status();
  absl::StatusOr<PanelFactor> b = PackFactor(op.b, op.scale, packing);
  if (!b.ok()) return b.status();
  return std::make_unique<CpuLowRank>(op, *std::move(a), *std::move(b));
}

absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Dense& op, const SitePacking& packing) {
  absl::StatusOr<PanelFactor> matrix = PackFactor(op.delta, op.scale, packing);
  if (!matrix.ok()) return matrix.status();
  return std::make_unique<CpuDense>(op, std::span<const int32_t>(), *std::move(matrix));
}

absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const DenseRows& op, const SitePacking& packing) {
  absl::StatusOr<PanelFactor> matrix = PackFactor(op.values, 1.0f, packing);
  if (!matrix.ok()) return matrix.status();
  return std::make_unique<CpuDense>(op, op.rows, *std::move(matrix));
}

absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Bottleneck& op,
                                                  const SitePacking& packing) {
  absl::StatusOr<PanelFactor> down = PackFactor(op.down, 1.0f, packing);
  if (!down.ok()) return down.status();
  absl::StatusOr<PanelFactor> up = PackFactor(op.up, 1.0f, packing);
  if (!up.ok()) return up.status();
  return std::make_unique<CpuBottleneck>(op, *std::move(down), *std::move(up));
}

}  // namespace polyad::cpu
