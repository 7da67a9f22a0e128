#pragma once

// The shared table on a device's backend, held against the double-precision reference.

#include "kernels/api/backend.h"
#include "tests/kernels/op_cases.h"

namespace polyad::test {

// Fails the running test where an output lies beyond its tolerance, or differs when run again.
void ExpectConforms(const OpCase& op, Backend& backend, Backend& reference);

}  // namespace polyad::test
