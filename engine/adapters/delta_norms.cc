#include "engine/adapters/delta_norms.h"

#include <cmath>
#include <cstring>
#include <span>
#include <variant>

#include "engine/base/check.h"
#include "engine/io/float_bits.h"

namespace polyad {
namespace {

std::vector<float> Widened(const TensorView& view) {
  const auto count = static_cast<size_t>(view.rows * view.cols);
  std::vector<float> values(count);
  if (view.dtype == DType::kF32) {
    std::memcpy(values.data(), view.data, count * sizeof(float));
    return values;
  }
  POLYAD_CHECK(view.dtype == DType::kF16 || view.dtype == DType::kBF16, "adapter tensor dtype");
  const auto* bits = static_cast<const uint16_t*>(view.data);
  const bool half = view.dtype == DType::kF16;
  for (size_t i = 0; i < count; ++i) {
    values[i] = half ? HalfToFloat(bits[i]) : BFloat16ToFloat(bits[i]);
  }
  return values;
}

// Sum over n of v[n] v[n]' for rows v[n] of length r: [r, r].
std::vector<double> Gram(const std::vector<float>& rows, int64_t r) {
  const auto rank = static_cast<size_t>(r);
  std::vector<double> gram(rank * rank, 0.0);
  for (size_t base = 0; base < rows.size(); base += rank) {
    const float* row = rows.data() + base;
    for (size_t i = 0; i < rank; ++i) {
      const double left = row[i];
      double* out = gram.data() + i * rank;
      for (size_t j = 0; j < rank; ++j) out[j] += left * static_cast<double>(row[j]);
    }
  }
  return gram;
}

std::vector<float> Transposed(const std::vector<float>& values, int64_t rows, int64_t cols) {
  std::vector<float> result(values.size());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      result[static_cast<size_t>(j * rows + i)] = values[static_cast<size_t>(i * cols + j)];
    }
  }
  return result;
}

double Square(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * value;
  return sum;
}

double SquareFromOne(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += (value - 1.0) * (value - 1.0);
  return sum;
}

double Square(const TensorView& matrix) { return Square(Widened(matrix)); }

// Scales row r of [rows, cols] by values[r].
void ScaleRows(std::span<const float> values, int64_t cols, std::vector<float>& matrix) {
  for (size_t i = 0; i < matrix.size() && !values.empty(); ++i) {
    matrix[i] *= values[i / static_cast<size_t>(cols)];
  }
}

double NormOf(const LowRank& op) {
  const int64_t rank = op.a.rows;
  std::vector<float> a = Widened(op.a);
  std::vector<float> b = Widened(op.b);
  ScaleRows(op.inner, op.a.cols, a);
  ScaleRows(op.outer, rank, b);
  const std::vector<double> aa = Gram(Transposed(a, rank, op.a.cols), rank);
  const std::vector<double> bb = Gram(b, rank);
  double square = 0;
  for (size_t i = 0; i < aa.size(); ++i) square += aa[i] * bb[i];
  return std::abs(static_cast<double>(op.scale)) * std::sqrt(std::max(square, 0.0));
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
  return std::visit([](const auto& kind) { return NormOf(kind); }, op);
}

StatusOr<std::vector<double>> LayerDeltaNorms(const AdapterProgram& program,
                                              const ModelSpec& spec) {
  std::vector<double> squares(static_cast<size_t>(spec.num_layers), 0.0);
  double total = 0;
  for (const SiteOp& site_op : program.ops) {
    const double norm = FrobeniusNorm(site_op.op);
    if (!std::isfinite(norm)) {
      return InvalidArgument("module %s: the change overflows", ModulePath(spec, site_op.site));
    }
    if (site_op.site.layer >= 0) squares[static_cast<size_t>(site_op.site.layer)] += norm * norm;
    total += norm;
  }
  for (const SubLayerHook& hook : program.hooks) {
    const double norm = NormOf(hook.op);
    if (!std::isfinite(norm)) return InvalidArgument("layer %d: the change overflows", hook.layer);
    squares[static_cast<size_t>(hook.layer)] += norm * norm;
    total += norm;
  }
  for (const DeltaOp& op : program.embedding_ops) total += FrobeniusNorm(op);
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
