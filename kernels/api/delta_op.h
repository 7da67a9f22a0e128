#pragma once

// The algebra that adapters lower to: what a kernel may be asked to add to a site, whatever family
// it came from. x is the site's raw input row, y its output row (zoo section 1.1). Each op is one
// struct with its one line of algebra; a new op is a struct here, a double-precision reference in
// kernels/reference, and cases in tests/kernels/op_cases.cc. Ops borrow their tensors;
// Backend::PackDelta copies them into its own layout, and the views may die then.

#include <cstdint>
#include <variant>

#include "kernels/api/tensor_view.h"

namespace polyad {

// y += B (A x). Every scale is folded into B by the lowering. Ranks are whatever they are: never
// padded or capped.
struct LowRank {
  TensorView a;        // [rank, in], f32, f16 or bf16
  TensorView b;        // [out, rank], f32, f16 or bf16
  float scale = 1.0f;  // applied to b in fp32 while packing
};

using DeltaOp = std::variant<LowRank>;

// What a packed op costs, for the scheduler and the load report.
struct DeltaCost {
  int64_t bytes = 0;            // resident bytes
  int64_t flops_per_token = 0;  // multiply-adds * 2
};

// An op in a backend's own layout; immutable, shared by every step that uses it.
class PackedDelta {
 public:
  virtual ~PackedDelta() = default;
  virtual DeltaCost cost() const = 0;
};

// One adapter's op on one run of rows at one site: rows [row_begin, row_end) of x and y, columns
// [y_column, y_column + out) of y (fused projections are column ranges of one output).
struct DeltaSegment {
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t y_column = 0;
  const PackedDelta* op = nullptr;
};

}  // namespace polyad
