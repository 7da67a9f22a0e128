#pragma once

// Op cases of the row-wise ops: norms, activations, gather, greedy pick.

#include "tests/kernels/op_cases.h"

namespace polyad::test {

const char* NameOf(ActivationKind kind);  // "gelu_tanh"

OpCase NormCase(NormKind kind, int64_t rows, int64_t cols, bool bias);
OpCase ActivateCase(ActivationKind kind, bool gated, int64_t rows, int64_t cols);
OpCase ArgMaxCase(int64_t rows, int64_t cols);
OpCase GatherCase(int64_t rows, int64_t cols);

}  // namespace polyad::test
