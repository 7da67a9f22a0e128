// For each q and k head h of token t: h <- rms_norm(h) where asked; then for each pair (i, i + d/2)
// of the first d = rotary_dim elements: (a, b) <- (a cos - b sin, b cos + a sin) (Su et al. 2021,
// half-split as in transformers rotate_half). k and v go to their slot of the cache.

#include <cmath>

#include "kernels/api/check.h"
#include "kernels/reference/element.h"
#include "kernels/reference/kv_codes.h"
#include "kernels/reference/reference_backend.h"

namespace polyad::ref {
namespace {

std::vector<double> NormedHead(const float* head, int64_t head_dim, const float* weight,
                               float eps) {
  std::vector<double> values(head, head + head_dim);
  if (weight == nullptr) return values;
  double mean_square = 0.0;
  for (double value : values) mean_square += value * value / static_cast<double>(head_dim);
  const double inverse = 1.0 / std::sqrt(mean_square + static_cast<double>(eps));
  for (size_t i = 0; i < values.size(); ++i) values[i] *= inverse * weight[i];
  return values;
}

void Rotate(const RopeTable& rope, int32_t position, std::vector<double>& head) {
  const auto half = static_cast<size_t>(rope.rotary_dim / 2);
  for (size_t i = 0; i < half; ++i) {
    const double cos = rope.cos[static_cast<size_t>(position) * half + i];
    const double sin = rope.sin[static_cast<size_t>(position) * half + i];
    const double a = head[i];
    const double b = head[i + half];
    head[i] = a * cos - b * sin;
    head[i + half] = b * cos + a * sin;
  }
}

void StoreHead(KvFormat format, KvPart part, const std::vector<double>& head, float* out) {
  const std::vector<float> rounded(head.begin(), head.end());
  const std::vector<double> stored = StoredHead(format, part, rounded);
  for (size_t i = 0; i < stored.size(); ++i) out[i] = static_cast<float>(stored[i]);
}

}  // namespace

void ReferenceBackend::RotateAndStore(const QkvArgs& args) {
  auto& kv = static_cast<StoredKv&>(*args.kv);
  const int64_t dim = kv.shape().head_dim;
  const int64_t num_kv_heads = kv.shape().num_kv_heads;
  KERNEL_CHECK(args.qkv.cols == (args.num_heads + 2 * num_kv_heads) * dim, "qkv width");
  for (int64_t t = 0; t < args.qkv.rows; ++t) {
    const int32_t position = args.positions[static_cast<size_t>(t)];
    const int64_t slot = args.slots[static_cast<size_t>(t)];
    float* q = args.qkv.Row(t);
    const float* k = q + args.num_heads * dim;
    const float* v = k + num_kv_heads * dim;
    for (int64_t h = 0; h < args.num_heads; ++h, q += dim) {
      std::vector<double> head = NormedHead(q, dim, args.q_norm, args.norm_eps);
      Rotate(args.rope, position, head);
      for (int64_t i = 0; i < dim; ++i) q[i] = static_cast<float>(head[static_cast<size_t>(i)]);
    }
    for (int64_t h = 0; h < num_kv_heads && slot >= 0; ++h) {
      std::vector<double> head = NormedHead(k + h * dim, dim, args.k_norm, args.norm_eps);
      Rotate(args.rope, position, head);
      StoreHead(kv.format(), KvPart::kKey, head, kv.K(args.layer, slot, h));
      StoreHead(kv.format(), KvPart::kValue, {v + h * dim, v + (h + 1) * dim},
                kv.V(args.layer, slot, h));
    }
  }
}

}  // namespace polyad::ref
