#include "kernels/cpu/product_ops.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/cpu/gemm_inputs.h"
#include "kernels/cpu/panel_factor.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/vector_bytes.h"

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
  CpuLowRank(const LowRank& op, PanelFactor a, PanelFactor b, const SitePacking& packing)
      : CpuSiteOp(op, packing),
        a_(std::move(a)),
        b_(std::move(b)),
        inner_(Kept(op.inner)),
        outer_(Kept(op.outer)) {
    set_bytes(a_.added + b_.added + BytesOf(inner_, outer_), a_.bytes + b_.bytes);
    add_read(a_.range());
    add_read(b_.range());
  }

  const GemmKernels* panel_kernels() const override { return a_.kernels; }

  void Add(const SiteRows& rows) const override {
    ForEachPass(rows, [this](const SiteRows& pass) { AddPass(pass); });
  }

 private:
  void AddPass(const SiteRows& rows) const {
    const int64_t count = rows.end - rows.begin;
    MiddleRows middle(b_, kRowsPerPass, b_.in, kernels(), WorkerScratch());
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
      kernels().add_product(1.0f, outer_.data(), wide + row * b_.out, rows.Y(rows.begin + row),
                            b_.out);
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
  CpuDense(const DeltaOp& op, std::span<const int32_t> rows, PanelFactor matrix,
           const SitePacking& packing)
      : CpuSiteOp(op, packing), rows_(rows.begin(), rows.end()), matrix_(std::move(matrix)) {
    set_bytes(matrix_.added + BytesOf(rows_), matrix_.bytes);
    add_read(matrix_.range());
  }

  const GemmKernels* panel_kernels() const override { return matrix_.kernels; }

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
      if (rows_.empty()) kernels().add_scaled(weight, from, y, matrix_.out);
      for (size_t n = 0; n < rows_.size(); ++n) y[rows_[n]] += weight * from[n];
    }
  }

  std::vector<int32_t> rows_;  // empty: all
  PanelFactor matrix_;
};

// y += weight vec(C X D'), with scale in C: Z = X D' as a product of X's m rows, then C Z.
class CpuKronecker final : public CpuSiteOp {
 public:
  CpuKronecker(const Kronecker& op, PanelFactor d, const SitePacking& packing)
      : CpuSiteOp(op, packing), l_(op.c.rows), m_(op.c.cols), d_(std::move(d)) {
    c_.resize(static_cast<size_t>(l_ * m_));
    for (int64_t row = 0; row < l_; ++row) DecodeRow(op.c, row, c_.data() + row * m_);
    for (float& value : c_) value *= op.scale;
    set_bytes(d_.added + BytesOf(c_), d_.bytes + BytesOf(c_).total());
    add_read(d_.range());
  }

  void Add(const SiteRows& rows) const override {
    const int64_t per_pass = std::max<int64_t>(1, kRowsPerPass / m_);
    for (SiteRows pass = rows; pass.begin < rows.end; pass.begin = pass.end) {
      pass.end = std::min(rows.end, pass.begin + per_pass);
      AddPass(pass);
    }
  }

 private:
  void AddPass(const SiteRows& rows) const {
    const int64_t count = (rows.end - rows.begin) * m_;
    const ActivationRows& x = rows.inputs.x;
    MiddleRows inputs(d_, count, d_.in, kernels(), WorkerScratch());
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = (rows.begin + i / m_) * x.stride + i % m_ * d_.in;
      if (x.dtype == DType::kF32) {
        std::copy_n(static_cast<const float*>(x.data) + at, d_.in, inputs.Row(i));
      } else {
        kernels().widen(static_cast<const uint16_t*>(x.data) + at, inputs.Row(i), d_.in);
      }
    }
    auto* z = reinterpret_cast<float*>(SinkScratch().Reserve(count * d_.out * 4));
    PanelTask task = inputs.AsInputs(count);
    d_.Describe(&task);
    task.y = z;
    task.y_stride = d_.out;
    task.ahead = rows.ahead;
    d_.kernel()(task);
    for (int64_t row = rows.begin; row < rows.end; ++row, z += m_ * d_.out) {
      for (int64_t a = 0; a < l_; ++a) {
        kernels().add_combined({c_.data() + a * m_, m_, z, d_.out, d_.out}, rows.Weight(row),
                               rows.Y(row) + a * d_.out);
      }
    }
  }

  int64_t l_;
  int64_t m_;
  std::vector<float> c_;  // [l, m]
  PanelFactor d_;         // [k, n]
};

// y += weight scale * (U act(D norm(x) + d) + u), a single scale in U and u.
class CpuBottleneck final : public CpuSiteOp {
 public:
  CpuBottleneck(const Bottleneck& op, PanelFactor down, PanelFactor up, const SitePacking& packing)
      : CpuSiteOp(op, packing),
        down_(std::move(down)),
        up_(std::move(up)),
        activation_(op.activation),
        down_bias_(Kept(op.down_bias)),
        up_bias_(Kept(op.up_bias)),
        norm_weight_(Kept(op.norm.weight)),
        norm_bias_(Kept(op.norm.bias)),
        norm_eps_(op.norm.eps) {
    if (op.scale.size() == static_cast<size_t>(up_.out)) scales_ = Kept(op.scale);
    for (float& value : up_bias_) value *= UpScale(op);
    set_bytes(
        down_.added + up_.added + BytesOf(down_bias_, up_bias_, scales_, norm_weight_, norm_bias_),
        down_.bytes + up_.bytes);
    add_read(down_.range());
    add_read(up_.range());
  }
  // What goes into U: one scale for all outputs.
  static float UpScale(const Bottleneck& op) {
    return op.scale.size() == 1 && op.up.rows > 1 ? op.scale[0] : 1.0f;
  }

  const GemmKernels* panel_kernels() const override {
    return norm_weight_.empty() ? down_.kernels : nullptr;
  }
  bool adds_to_input() const override { return true; }

  void Add(const SiteRows& rows) const override {
    ForEachPass(rows, [this](const SiteRows& pass) { AddPass(pass); });
  }

 private:
  void AddPass(const SiteRows& rows) const {
    const int64_t count = rows.end - rows.begin;
    MiddleRows middle(up_, kRowsPerPass, up_.in, kernels(), WorkerScratch());
    MiddleRows normed(down_, norm_weight_.empty() ? 0 : count, down_.in, kernels(), SinkScratch());
    PanelTask shrink = norm_weight_.empty() ? RowsOf(rows.inputs.panels, rows.begin, rows.end)
                                            : NormedInputs(rows, normed);
    down_.Describe(&shrink);
    shrink.bias = down_bias_.empty() ? nullptr : down_bias_.data();
    shrink.y = middle.Row(0);
    shrink.y_stride = middle.stride();
    shrink.ahead = rows.ahead;
    down_.kernel()(shrink);
    const ActivateRow activate{activation_, false, false, up_.in};
    for (int64_t row = 0; row < count; ++row) {
      row_kernels().activate(activate, middle.Row(row), middle.Row(row));
    }
    Expand(rows, middle.AsInputs(count));
  }

  void Expand(const SiteRows& rows, PanelTask expand) const {
    const int64_t count = rows.end - rows.begin;
    up_.Describe(&expand);
    expand.bias = up_bias_.empty() ? nullptr : up_bias_.data();
    expand.y_stride = up_.out;
    expand.ahead = rows.ahead;
    expand.y = reinterpret_cast<float*>(SinkScratch().Reserve(count * up_.out * 4));
    up_.kernel()(expand);
    for (int64_t row = 0; row < count; ++row) {
      const float* from = expand.y + row * up_.out;
      const float weight = rows.Weight(rows.begin + row);
      float* y = rows.Y(rows.begin + row);
      if (scales_.empty()) kernels().add_scaled(weight, from, y, up_.out);
      if (!scales_.empty()) kernels().add_product(weight, scales_.data(), from, y, up_.out);
    }
  }

  PanelTask NormedInputs(const SiteRows& rows, MiddleRows& normed) const {
    const ActivationRows& x = rows.inputs.x;
    NormRow norm;
    norm.kind = NormKind::kLayer;
    norm.eps = norm_eps_;
    norm.weight = norm_weight_.data();
    norm.bias = norm_bias_.empty() ? nullptr : norm_bias_.data();
    norm.cols = down_.in;
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      float* to = normed.Row(row - rows.begin);
      if (x.dtype == DType::kF32) {
        row_kernels().norm(norm, static_cast<const float*>(x.data) + row * x.stride, to);
      } else {
        kernels().widen(static_cast<const uint16_t*>(x.data) + row * x.stride, to, down_.in);
        row_kernels().norm(norm, to, to);
      }
    }
    return normed.AsInputs(rows.end - rows.begin);
  }

  PanelFactor down_;
  PanelFactor up_;
  ActivationKind activation_;
  std::vector<float> down_bias_;
  std::vector<float> up_bias_;
  std::vector<float> scales_;  // [out] or empty
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
  return std::make_unique<CpuLowRank>(op, *std::move(a), *std::move(b), packing);
}

absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Dense& op, const SitePacking& packing) {
  absl::StatusOr<PanelFactor> matrix = PackFactor(op.delta, op.scale, packing);
  if (!matrix.ok()) return matrix.status();
  return std::make_unique<CpuDense>(op, std::span<const int32_t>(), *std::move(matrix), packing);
}

absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const DenseRows& op, const SitePacking& packing) {
  absl::StatusOr<PanelFactor> matrix = PackFactor(op.values, 1.0f, packing);
  if (!matrix.ok()) return matrix.status();
  return std::make_unique<CpuDense>(op, op.rows, *std::move(matrix), packing);
}

absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Kronecker& op, const SitePacking& packing) {
  absl::StatusOr<PanelFactor> d = PackFactor(op.d, 1.0f, packing);
  if (!d.ok()) return d.status();
  return std::make_unique<CpuKronecker>(op, *std::move(d), packing);
}

absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Bottleneck& op,
                                                  const SitePacking& packing) {
  absl::StatusOr<PanelFactor> down = PackFactor(op.down, 1.0f, packing);
  if (!down.ok()) return down.status();
  absl::StatusOr<PanelFactor> up = PackFactor(op.up, CpuBottleneck::UpScale(op), packing);
  if (!up.ok()) return up.status();
  return std::make_unique<CpuBottleneck>(op, *std::move(down), *std::move(up), packing);
}

}  // namespace polyad::cpu
