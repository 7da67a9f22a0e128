#pragma once

// One benchmark for each of adapters' ops (kernels/api/delta_op.h) at the sites of SmolLM2-135M,
// for a decode step's rows and a prefill chunk's, all of them one adapter's. Rows stay where they
// are between calls: transforms change nothing, so that numbers neither grow nor vanish.

#include "kernels/api/backend.h"

namespace polyad::test {

// Registers them; `backend` must outlive the benchmarks' run.
void RegisterDeltaBenchmarks(Backend& backend);

}  // namespace polyad::test
