#pragma once

// The shared table on a device's backend, held against the double-precision reference.

#include <vector>

#include "kernels/api/backend.h"
#include "tests/kernels/op_cases.h"

namespace polyad::test {

// Of the table, what the CUDA backend has kernels for in `mode`: all but K/V as codes.
std::vector<OpCase> CasesOnDevice(ComputeMode mode);

// Fails the running test where an output lies beyond its tolerance, or differs when run again.
void ExpectConforms(const OpCase& op, Backend& backend, Backend& reference);

}  // namespace polyad::test
