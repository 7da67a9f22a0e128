#pragma once

// One row of one delta in double precision: y += weight * op(x). Each kind has its file, headed by
// its formula; delta.cc walks the segments.

#include <vector>

#include "kernels/api/delta_op.h"

namespace polyad::ref {

struct TermRow {
  const std::vector<double>& x;  // [in]
  double weight = 1.0;           // the segment's scale
  std::vector<double>& y;        // [out]
};

void AddTerm(const LowRank& op, const TermRow& row);
void AddTerm(const Dense& op, const TermRow& row);
void AddTerm(const DenseRows& op, const TermRow& row);
void AddTerm(const Sparse& op, const TermRow& row);
void AddTerm(const SignBits& op, const TermRow& row);
void AddTerm(const Kronecker& op, const TermRow& row);
void AddTerm(const Bias& op, const TermRow& row);
void AddTerm(const Bottleneck& op, const TermRow& row);

// An input op but a bottleneck: x1 of x, [in].
std::vector<double> TransformedInput(const DeltaOp& op, const std::vector<double>& x);

}  // namespace polyad::ref
