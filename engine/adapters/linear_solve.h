#pragma once

// Linear equations in double precision, for the lowerings that invert a matrix while they load.
// Row-major, [size, size] and [size, columns]; elimination with row exchanges. Pure; loader
// threads.

#include <cstdint>
#include <vector>

namespace polyad {

// Solves a x = b; x takes b's place and a is used up. False where a is singular in double
// precision.
bool SolveInPlace(std::vector<double>& a, std::vector<double>& b, int64_t size, int64_t columns);

std::vector<double> IdentityMatrix(int64_t size);

}  // namespace polyad
