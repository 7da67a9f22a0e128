#include "engine/adapters/delta_norms.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <variant>

#include "engine/adapters/dense_math.h"
#include "engine/adapters/gram.h"
#include "engine/adapters/row_squares.h"
#include "kernels/api/give_way.h"

namespace polyad {
namespace {

double Square(std::span<const float> values) {
  return SumOfSquares(values.data(), static_cast<int64_t>(values.size()));
}

double Square(const TensorView& matrix) {
  const int64_t count = matrix.rows * matrix.cols;
  if (matrix.dtype == DType::kF32) {
    return SumOfSquares(static_cast<const float*>(matrix.data), count);
  }
  constexpr int64_t kPiece = 4096;  // widened at a time, so that it stays in cache
  double square = 0;
  for (int64_t at = 0; at < count; at += kPiece) {
    const auto* from = static_cast<const char*>(matrix.data) + RowBytes(matrix.dtype, at);
    square += Square(Widened({from, matrix.dtype, 1, std::min(kPiece, count - at)}).values);
  }
  return square;
}

double SquareFromOne(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += (value - 1.0) * (value - 1.0);
  return sum;
}

// A factor with its rows scaled, in `scaled` where it has scales.
TensorView ScaledRows(const TensorView& factor, std::span<const float> scales, Matrix& scaled) {
  if (scales.empty()) return factor;
  scaled = Widened(factor);
  ScaleRows(scaled, {scales.begin(), scales.end()});
  return ViewOf(scaled);
}

double NormOf(const LowRank& op) {
  Matrix own_a;
  Matrix own_b;
  const TensorView a = ScaledRows(op.a, op.inner, own_a);
  const TensorView b = ScaledRows(op.b, op.outer, own_b);
  const auto scale = std::abs(static_cast<double>(op.scale));
  if (a.rows * (b.rows + a.cols) > b.rows * a.cols) {
    return scale * std::sqrt(Square(Multiply(Widened(b), Widened(a)).values));
  }
  // |b a|^2 is the sum of (a a') * (b' b) elementwise: two squares of side rank.
  const std::vector<double> aa = RowGram(a);
  const std::vector<double> bb = ColumnGram(b);
  double square = 0;
  for (size_t i = 0; i < aa.size(); ++i) square += aa[i] * bb[i];
  return scale * std::sqrt(std::max(square, 0.0));
}

double NormOf(const Dense& op) { return std::abs(op.scale) * std::sqrt(Square(op.delta)); }
double NormOf(const DenseRows& op) { return std::sqrt(Square(op.values)); }
double NormOf(const Sparse& op) { return std::sqrt(Square(op.values)); }
double NormOf(const SignBits& op) {
  const auto covered = static_cast<double>(op.out * op.in) / static_cast<double>(op.scale.size());
  return std::sqrt(Square(op.scale) * covered);
}
double NormOf(const Kronecker& op) {
  return std::abs(op.scale) * std::sqrt(Square(op.c) * Square(op.d));
}
double NormOf(const Bias& op) { return std::sqrt(Square(op.values)); }
// No matrix to measure: what its last product and bias can give for a hidden row of unit size.
double NormOf(const Bottleneck& op) {
  double scale = 1.0;
  if (!op.scale.empty()) scale = std::sqrt(Square(op.scale) / static_cast<double>(op.scale.size()));
  return scale * std::sqrt(Square(op.up) + Square(op.up_bias));
}
// Transforms: their distance from doing nothing.
double NormOf(const InputScale& op) { return std::sqrt(SquareFromOne(op.values)); }
double NormOf(const OutputScale& op) { return std::sqrt(SquareFromOne(op.values)); }
double NormOf(const PairRotation& op) { return std::sqrt(SquareFromOne(op.f) + Square(op.g)); }
double NormOf(const BlockRotation& op) {
  const auto size = static_cast<size_t>(op.size);
  double square = 0;
  for (size_t i = 0; i < op.blocks.size(); ++i) {
    const bool diagonal = i / size % size == i % size;
    const double off = op.blocks[i] - (diagonal ? 1.0 : 0.0);
    square += off * off;
  }
  return std::sqrt(square);
}
double NormOf(const EmbeddingRows& op) { return std::sqrt(Square(op.rows)); }
double NormOf(const EmbeddingLowRank& op) {
  const LowRank factors{op.a, op.b, op.scale, {}, {}};
  return NormOf(factors) + std::sqrt(SquareFromOne(op.column_scale));
}

}  // namespace

double FrobeniusNorm(const DeltaOp& op) {
  GiveWay();
  return std::visit([](const auto& kind) { return NormOf(kind); }, op);
}

StatusOr<std::vector<double>> LayerDeltaNorms(const AdapterProgram& program,
                                              const ModelSpec& spec) {
  std::vector<double> squares(static_cast<size_t>(spec.num_layers), 0.0);
  double total = 0;
  for (const SiteOp& site_op : program.ops) {
    const double norm = site_op.norm >= 0 ? site_op.norm : FrobeniusNorm(site_op.op);
    if (!std::isfinite(norm)) {
      return InvalidArgument("module %s: the change overflows", ModulePath(spec, site_op.site));
    }
    if (site_op.site.layer >= 0) squares[static_cast<size_t>(site_op.site.layer)] += norm * norm;
    total += norm;
  }
  for (const SubLayerHook& hook : program.hooks) {
    double norm = FrobeniusNorm(hook.op);
    for (const DeltaOp& op : hook.more) norm = std::hypot(norm, FrobeniusNorm(op));
    if (!std::isfinite(norm)) return InvalidArgument("layer %d: the change overflows", hook.layer);
    squares[static_cast<size_t>(hook.layer)] += norm * norm;
    total += norm;
  }
  for (const DeltaOp& op : program.embedding_ops) total += FrobeniusNorm(op);
  for (const Bottleneck& op : program.stream_ops) total += NormOf(op);
  for (const EmbeddingCoupling& coupling : program.couplings) {
    total += NormOf(coupling.first) + NormOf(coupling.second);
  }
  if (!std::isfinite(total)) return InvalidArgument("embedding: the change overflows");
  for (const GatedPrefixTensors& prefix : program.gated_prefixes) {
    for (const float gate : prefix.gate) total += std::abs(static_cast<double>(gate));
  }
  if (total == 0 && program.norms.empty() && !program.soft_prompt) {
    return InvalidArgument(
        "adapter_model.safetensors: every change is zero, so the adapter does nothing");
  }
  for (double& square : squares) square = std::sqrt(square);
  return squares;
}

}  // namespace polyad
