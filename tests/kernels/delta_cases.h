#pragma once

// Op cases of adapters' ops (delta_specs.h), each on some rows of a call with segment weights and
// rows left alone, and of the moves between rows that hooks make.

#include "tests/kernels/delta_specs.h"
#include "tests/kernels/op_cases.h"

namespace polyad::test {

OpCase DeltaCase(const DeltaSpec& spec);
// Copy, Convert, Zero and Accumulate on column ranges.
OpCase MoveCase(int64_t rows, int64_t cols);

}  // namespace polyad::test
