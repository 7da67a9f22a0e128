#pragma once

// Work that kernels do in the mutant test: a conformance case by its name, or one of the works
// below for what the shared table has no case of. Any backend can do it, so that the reference says
// what is right.

#include <limits>
#include <string_view>
#include <vector>

#include "kernels/api/backend.h"

namespace polyad::test {

struct Outcome {
  std::vector<double> values;
  std::vector<double> tolerance;                                    // of the reference's outcome
  double norm_tolerance = std::numeric_limits<double>::infinity();  // of |error| / |values|
};

// kF32 for works whose name ends in "_exact".
ComputeMode ModeOf(std::string_view work);
Outcome DoWork(std::string_view work, Backend& backend);

}  // namespace polyad::test
