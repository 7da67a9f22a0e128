#include "engine/adapters/delta_norms.h"

#include <cmath>
#include <cstring>
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

double NormOf(const LowRank& op) {
  const int64_t rank = op.a.rows;
  const std::vector<double> aa = Gram(Transposed(Widened(op.a), rank, op.a.cols), rank);
  const std::vector<double> bb = Gram(Widened(op.b), rank);
  double square = 0;
  for (size_t i = 0; i < aa.size(); ++i) square += aa[i] * bb[i];
  return std::abs(static_cast<double>(op.scale)) * std::sqrt(std::max(square, 0.0));
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
  if (total == 0) {
    return InvalidArgument(
        "adapter_model.safetensors: every change is zero, so the adapter does nothing");
  }
  for (double& square : squares) square = std::sqrt(square);
  return squares;
}

}  // namespace polyad
