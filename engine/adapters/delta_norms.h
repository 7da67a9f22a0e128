#pragma once

// How much an adapter changes each layer: the Frobenius norm of its summed site changes, for the
// load report, and the check that it changes anything at all. Computed from the factors (|BA|^2 =
// <B'B, AA'>), never by forming B A.

#include <vector>

#include "engine/adapters/adapter_program.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"

namespace polyad {

// |dW| of one op, scale included, in double precision.
double FrobeniusNorm(const DeltaOp& op);

// [num_layers]: sqrt of the sum over a layer's sites of |dW|^2. INVALID_ARGUMENT where every site's
// change is zero, or where a product overflows.
StatusOr<std::vector<double>> LayerDeltaNorms(const AdapterProgram& program, const ModelSpec& spec);

}  // namespace polyad
