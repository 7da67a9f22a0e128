#include "kernels/cpu/gated_prefix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/api/dot.h"
#include "kernels/cpu/number_format.h"

namespace polyad::cpu {
namespace {

// softmax_j(scale q . k[j]) * gate
void Weigh(const GatedPrefixArgs& args, const float* q, int64_t kv_head, float gate,
           float* weights) {
  const int64_t num_keys = args.kv.rows;
  for (int64_t j = 0; j < num_keys; ++j) {
    weights[j] = args.scale * Dot(q, args.kv.Row(j) + kv_head * args.head_dim, args.head_dim);
  }
  const float max = *std::max_element(weights, weights + num_keys);
  float sum = 0;
  for (int64_t j = 0; j < num_keys; ++j) sum += (weights[j] = std::exp(weights[j] - max));
  for (int64_t j = 0; j < num_keys; ++j) weights[j] *= gate / sum;
}

}  // namespace

void AddGatedPrefixRow(const GatedPrefixArgs& args, int64_t row, std::vector<float>& scratch) {
  const int64_t dim = args.head_dim;
  const int64_t group = args.num_heads / args.num_kv_heads;
  scratch.resize(static_cast<size_t>(args.kv.rows + dim));
  float* weights = scratch.data();
  float* sums = weights + args.kv.rows;
  for (int64_t head = 0; head < args.num_heads; ++head) {
    const int64_t kv_head = head / group;
    Weigh(args, args.q.Row(row) + head * dim, kv_head, args.gate[head], weights);
    std::fill_n(sums, dim, 0.0f);
    for (int64_t j = 0; j < args.kv.rows; ++j) {
      const float* v = args.kv.Row(j) + (args.num_kv_heads + kv_head) * dim;
      for (int64_t i = 0; i < dim; ++i) sums[i] += weights[j] * v[i];
    }
    const int64_t at = row * args.out.stride + head * dim;
    if (args.out.dtype == DType::kF32) {
      float* out = static_cast<float*>(args.out.data) + at;
      for (int64_t i = 0; i < dim; ++i) out[i] += sums[i];
    } else {
      uint16_t* out = static_cast<uint16_t*>(args.out.data) + at;
      for (int64_t i = 0; i < dim; ++i) out[i] = ToBf16(FromBf16(out[i]) + sums[i]);
    }
  }
}

}  // namespace polyad::cpu
