#pragma once

// Whether an op's tensors chain, and what it reads, writes and costs: the part of packing that
// every backend shares. Pure functions of the op's shapes, but for index lists, which are walked
// once.

#include "absl/status/status.h"
#include "kernels/api/delta_op.h"

namespace polyad {

struct DeltaShape {
  int64_t in = 0;   // width of the row it reads; 0: none (a bias)
  int64_t out = 0;  // width of the row it changes
};

// INVALID_ARGUMENT naming the op, what was expected and what it got.
absl::Status CheckDeltaOp(const DeltaOp& op);

// These need an op that CheckDeltaOp accepts.
DeltaShape ShapeOf(const DeltaOp& op);
// Multiply-adds times two for one row.
int64_t FlopsPerToken(const DeltaOp& op);
const char* NameOf(const DeltaOp& op);  // "LowRank"

}  // namespace polyad
