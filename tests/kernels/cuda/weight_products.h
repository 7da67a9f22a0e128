#pragma once

// Products of one packed weight of any format, for tests of the product kernels: weights whose
// groups, zero points and code tables the shared op cases do not have.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/api/backend.h"
#include "tests/kernels/stored_weight.h"

namespace polyad::test {

// "levels" (NF4's kind: 16 levels, groups of 64), "float8" (one scale for a row), "groups" (4-bit
// codes, groups of 48, a zero point for each), "minima" (8-bit codes, groups of 32 with minima),
// "narrow" (groups of 8, which tiles cannot have) or "scattered" (inputs of any group).
StoredWeight MakeCoded(std::string_view kind, int64_t rows, int64_t cols);
std::vector<std::string> CodedKinds();

struct WeightProduct {
  std::vector<double> values;     // [rows, out]
  std::vector<double> tolerance;  // where numbers are multiplied as they are
};
// W x of `rows` rows, of those that a call of `from` rows more would begin with; activations depend
// on the row's number alone.
WeightProduct ProductOf(Backend& backend, const StoredWeight& weight, int64_t rows,
                        int64_t from = 0);

}  // namespace polyad::test
