#pragma once

// The row kernels of an instruction set: what the backend and packed ops hold once the level is
// chosen.

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/row_kernels.h"

namespace polyad::cpu {

// amx has those of avx512. Lives as long as the process.
const RowKernels& RowKernelsOf(Isa isa);

}  // namespace polyad::cpu
