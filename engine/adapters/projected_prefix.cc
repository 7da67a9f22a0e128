#include "engine/adapters/projected_prefix.h"

#include <cmath>
#include <span>

#include "engine/adapters/lowering_ops.h"
#include "engine/spec/rope_frequencies.h"

namespace polyad {
namespace {

// row = weight * (row - mean) / deviation + bias, or weight * row / root mean square.
void NormRow(NormKind kind, double eps, const NormVectors& norm, std::span<float> row) {
  const auto size = static_cast<double>(row.size());
  double mean = 0;
  if (kind == NormKind::kLayer) {
    for (const float value : row) mean += value / size;
  }
  double square = 0;
  for (const float value : row) square += (value - mean) * (value - mean) / size;
  const double inverse = 1.0 / std::sqrt(square + eps);
  for (size_t i = 0; i < row.size(); ++i) {
    const double bias = norm.bias.empty() ? 0.0 : norm.bias[i];
    row[i] = static_cast<float>((row[i] - mean) * inverse * norm.weight[i] + bias);
  }
}

// Pairs (i, i + d / 2) of a head's first d elements, as kernels/api/backend.h has it.
void Rotate(const std::vector<float>& frequencies, double attention_factor, int64_t position,
            std::span<float> head) {
  const size_t half = frequencies.size();
  for (size_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * frequencies[i];  // fp32, as the tables
    const double cos = std::cos(static_cast<double>(angle)) * attention_factor;
    const double sin = std::sin(static_cast<double>(angle)) * attention_factor;
    const double a = head[i];
    const double b = head[i + half];
    head[i] = static_cast<float>(a * cos - b * sin);
    head[i + half] = static_cast<float>(b * cos + a * sin);
  }
}

// A site's rows [first, first + width) of W x + b, into columns [column, column + width) of `kv`.
Status Project(const LoweringContext& context, SiteRef site, std::pair<int64_t, int64_t> part,
               const Matrix& x, std::span<float> kv) {
  const ModelSpec& spec = context.spec;
  const auto [first, column] = part;
  const int64_t width = spec.KvWidth();
  POLYAD_ASSIGN_OR_RETURN(const Matrix weight, BaseWeight(context, site));
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> bias, BaseBias(context, site));
  const Matrix own = MultiplyTransposed(x, Rows(weight, first, first + width));
  for (int64_t row = 0; row < x.rows; ++row) {
    for (int64_t i = 0; i < width; ++i) {
      kv[static_cast<size_t>(row * 2 * width + column + i)] =
          own.At(row, i) + bias[static_cast<size_t>(first + i)];
    }
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<std::vector<float>> KeysAndValuesOf(const LoweringContext& context, int64_t layer,
                                             Matrix rows) {
  const ModelSpec& spec = context.spec;
  const int64_t width = spec.KvWidth();
  std::vector<float> kv(static_cast<size_t>(rows.rows * 2 * width));
  for (int64_t part = 0; part < 2; ++part) {
    const Site own = part == 0 ? Site::kK : Site::kV;
    const SiteRef site{layer, spec.fused_qkv ? Site::kQkv : own};
    const int64_t first = spec.fused_qkv ? spec.QueryWidth() + part * width : 0;
    POLYAD_RETURN_IF_ERROR(Project(context, site, {first, part * width}, rows, kv));
  }
  return kv;
}

StatusOr<std::vector<float>> KeysAndValuesOfStates(const LoweringContext& context, int64_t layer,
                                                   Matrix rows) {
  const ModelSpec& spec = context.spec;
  if (RopeReaches(spec.rope, spec.max_position).size() > 1) {
    return Unimplemented(
        "prefix: states that are rotated while loading are not served where the rotation depends "
        "on "
        "how long a request is");
  }
  POLYAD_ASSIGN_OR_RETURN(const BaseWeights* base, context.Base());
  POLYAD_ASSIGN_OR_RETURN(const NormVectors norm, base->Norm(layer, NormSite::kAttention));
  const auto hidden = static_cast<size_t>(rows.cols);
  for (int64_t row = 0; row < rows.rows; ++row) {
    NormRow(spec.norm, static_cast<double>(spec.norm_eps), norm, {rows.Row(row), hidden});
  }
  const int64_t num_rows = rows.rows;
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> kv, KeysAndValuesOf(context, layer, std::move(rows)));
  NormVectors head_norm;
  if (spec.qk_norm) {
    POLYAD_ASSIGN_OR_RETURN(head_norm, base->Norm(layer, NormSite::kKeyHead));
  }
  std::vector<float> frequencies;
  if (spec.rope.rotary_dim > 0) frequencies = RopeFrequencies(spec.rope);
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int64_t head = 0; head < spec.num_kv_heads; ++head) {
      const std::span<float> key(kv.data() + row * 2 * spec.KvWidth() + head * spec.head_dim,
                                 static_cast<size_t>(spec.head_dim));
      if (spec.qk_norm) {
        NormRow(NormKind::kRms, static_cast<double>(spec.norm_eps), head_norm, key);
      }
      Rotate(frequencies, spec.rope.attention_factor, row, key);
    }
  }
  return kv;
}

}  // namespace polyad
