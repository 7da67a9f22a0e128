// out[t, h] = sum_j softmax_j(scale q[t, h] . k[j, g]) v[j, g] over the keys j <= p of t's own
// sequence (and j > p - window where the window slides), p the position of t and g = h / (num_heads
// / num_kv_heads) (Vaswani et al. 2017, eq. 1; Ainslie et al. 2023 for the grouped heads). Where t
// has gates, those of k[j] and v[j] multiply them.

#include <algorithm>
#include <cmath>

#include "kernels/api/check.h"
#include "kernels/reference/element.h"
#include "kernels/reference/reference_backend.h"

namespace polyad::ref {
namespace {

int64_t SlotOf(const AttentionSequence& sequence, int64_t position) {
  const int64_t block = sequence.blocks[static_cast<size_t>(position / kBlockTokens)];
  return block * kBlockTokens + position % kBlockTokens;
}

// One head of row t of all rows.
std::vector<double> AttendOne(const AttentionArgs& args, const AttentionSequence& sequence,
                              int64_t t, const float* q, int64_t kv_head) {
  const int64_t position = sequence.context_end - (sequence.row_end - t);
  const auto gate = [&](int64_t j) {
    if (j >= sequence.key_gates.cols) return 1.0;
    return static_cast<double>(sequence.key_gates.Row(t - sequence.row_begin)[j]);
  };
  const auto& kv = static_cast<const StoredKv&>(*args.kv);
  const int64_t dim = kv.shape().head_dim;
  const int64_t oldest = args.sliding_window > 0 ? position - args.sliding_window + 1 : 0;
  const int64_t begin = std::max(sequence.first_key, oldest);
  std::vector<double> scores;
  for (int64_t j = begin; j <= position; ++j) {
    const float* k = kv.K(args.layer, SlotOf(sequence, j), kv_head);
    double dot = 0.0;
    for (int64_t i = 0; i < dim; ++i) dot += static_cast<double>(q[i]) * k[i];
    scores.push_back(dot * args.scale * gate(j));
  }
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0.0;
  for (double& score : scores) sum += (score = std::exp(score - max));
  std::vector<double> out(static_cast<size_t>(dim), 0.0);
  for (int64_t j = begin; j <= position; ++j) {
    const float* v = kv.V(args.layer, SlotOf(sequence, j), kv_head);
    const double weight = scores[static_cast<size_t>(j - begin)] / sum * gate(j);
    for (int64_t i = 0; i < dim; ++i) out[static_cast<size_t>(i)] += weight * v[i];
  }
  return out;
}

}  // namespace

void ReferenceBackend::Attention(const AttentionArgs& args) {
  const KvShape& shape = static_cast<const StoredKv&>(*args.kv).shape();
  const int64_t group = args.num_heads / shape.num_kv_heads;
  KERNEL_CHECK(group * shape.num_kv_heads == args.num_heads, "heads per kv head");
  for (const AttentionSequence& sequence : args.sequences) {
    for (int64_t t = sequence.row_begin; t < sequence.row_end; ++t) {
      for (int64_t h = 0; h < args.num_heads; ++h) {
        const float* q = args.qkv.Row(t) + h * shape.head_dim;
        const std::vector<double> out = AttendOne(args, sequence, t, q, h / group);
        for (int64_t i = 0; i < shape.head_dim; ++i) {
          WriteElement(args.out, t, h * shape.head_dim + i, out[static_cast<size_t>(i)]);
        }
      }
    }
  }
}

}  // namespace polyad::ref
