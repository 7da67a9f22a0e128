#pragma once

// An adapter's coefficients of experts, from a row's own scores (MixtureRule in adapter_program.h).
// Engine thread; a row's coefficients depend on its own scores, or its segment's, alone. Sources:
// Arrow (Ostapenko et al. 2024); zoo section 1.1, GT.

#include <span>

#include "engine/adapters/adapter_program.h"
#include "kernels/api/tensor_view.h"

namespace polyad {

// Of scores [rows, num_experts], the coefficients [num_experts, rows]: each expert's own, row by
// row, as a delta takes them. The rows are one segment's.
void MixtureCoefficients(const MixtureRule& rule, FloatRows scores, std::span<float> coefficients);

}  // namespace polyad
