#pragma once

// One row of the second attention over an adapter's own keys (GatedPrefixArgs): plain code, a dozen
// keys at most in practice, all sums in one order whatever else is in the call.

#include <vector>

#include "kernels/api/backend.h"

namespace polyad::cpu {

// `scratch` is the caller's, grown to what a row needs.
void AddGatedPrefixRow(const GatedPrefixArgs& args, int64_t row, std::vector<float>& scratch);

}  // namespace polyad::cpu
