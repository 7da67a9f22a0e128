#pragma once

// Lengths of a changed weight's rows without forming the change. With W' = W + B A and G = A A',
//   |W'[i]|^2 = |W[i]|^2 + 2 B[i] . (A W[i]) + B[i] G B[i]'
// where A W' is one product with the base's weights as they are served. The sum cancels where a
// change takes most of a row away; the change is then formed after all. Pure functions over
// short-lived matrices; loader threads. Errors are the base's.

#include <cstdint>
#include <vector>

#include "engine/adapters/dense_math.h"
#include "engine/adapters/lowering_context.h"
#include "engine/base/status.h"

namespace polyad {

inline TensorView ViewOf(const Matrix& m) { return {m.values.data(), DType::kF32, m.rows, m.cols}; }

// |row|^2 of W + b a and of b a, [out] each.
struct ChangedRows {
  std::vector<double> sum;
  std::vector<double> change;
};

// For the base's matrix W at `site`; b is [out, rank], a is [rank, in].
StatusOr<ChangedRows> ChangedRowSquares(const LoweringContext& context, SiteRef site,
                                        const Matrix& b, const Matrix& a);

}  // namespace polyad
