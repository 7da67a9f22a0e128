// best[t] = the first i with logits[t, i] = max_j logits[t, j]

#include <algorithm>

#include "kernels/reference/reference_backend.h"

namespace polyad::ref {

void ReferenceBackend::ArgMax(FloatRows logits, std::span<TokenScore> best) {
  for (int64_t t = 0; t < logits.rows; ++t) {
    const float* row = logits.Row(t);
    const float* max = std::max_element(row, row + logits.cols);
    best[static_cast<size_t>(t)] = {static_cast<int32_t>(max - row), *max};
  }
}

}  // namespace polyad::ref
