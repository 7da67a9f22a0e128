// out[t, h] += gate[h] sum_j softmax_j(scale q[t, h] . k[j, g]) v[j, g] over the keys an adapter
// brings (Zhang et al. 2023, "LLaMA-Adapter"; the gate outside the softmax, as peft 0.21.2 has it).

#include <algorithm>
#include <cmath>

#include "kernels/api/check.h"
#include "kernels/reference/element.h"
#include "kernels/reference/reference_backend.h"

namespace polyad::ref {
namespace {

std::vector<double> Weights(const GatedPrefixArgs& args, const float* q, int64_t kv_head) {
  std::vector<double> weights;
  for (int64_t j = 0; j < args.kv.rows; ++j) {
    const float* k = args.kv.Row(j) + kv_head * args.head_dim;
    double dot = 0.0;
    for (int64_t i = 0; i < args.head_dim; ++i) dot += static_cast<double>(q[i]) * k[i];
    weights.push_back(dot * args.scale);
  }
  const double max = *std::max_element(weights.begin(), weights.end());
  double sum = 0.0;
  for (double& weight : weights) sum += (weight = std::exp(weight - max));
  for (double& weight : weights) weight /= sum;
  return weights;
}

}  // namespace

void ReferenceBackend::AddGatedPrefix(const GatedPrefixArgs& args) {
  const int64_t dim = args.head_dim;
  KERNEL_CHECK(args.kv.rows > 0 && args.kv.cols == 2 * args.num_kv_heads * dim, "prefix shape");
  KERNEL_CHECK(args.q.rows == args.out.rows && args.q.cols == args.num_heads * dim &&
                   args.out.cols == args.q.cols,
               "gated prefix rows");
  for (int64_t t = 0; t < args.q.rows; ++t) {
    for (int64_t h = 0; h < args.num_heads; ++h) {
      const int64_t kv_head = h / (args.num_heads / args.num_kv_heads);
      const std::vector<double> weights = Weights(args, args.q.Row(t) + h * dim, kv_head);
      for (int64_t i = 0; i < dim; ++i) {
        double sum = 0.0;
        for (int64_t j = 0; j < args.kv.rows; ++j) {
          const int64_t column = (args.num_kv_heads + kv_head) * dim + i;
          sum += weights[static_cast<size_t>(j)] * args.kv.Row(j)[column];
        }
        const double before = ReadElement(args.out, t, h * dim + i);
        WriteElement(args.out, t, h * dim + i, before + args.gate[h] * sum);
      }
    }
  }
}

}  // namespace polyad::ref
