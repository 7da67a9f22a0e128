#pragma once

// How a lowering puts what it computed into its program: matrices move into the arena, an op views
// them. Also the base's weights as matrices. Loader thread.

#include <vector>

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/dense_math.h"
#include "engine/adapters/lowering_context.h"

namespace polyad {

// y += b (a x), a [rank, in], b [out, rank]; nothing where the rank is 0.
void AddLowRank(AdapterProgram& program, SiteRef site, Matrix a, Matrix b);
// y += delta x, delta [out, in].
void AddDense(AdapterProgram& program, SiteRef site, Matrix delta);
// y += values
void AddBias(AdapterProgram& program, SiteRef site, std::vector<float> values);
// y = values * (the base's product and bias)
void ScaleOutput(AdapterProgram& program, SiteRef site, std::vector<float> values);

// [out, in] as the server computes with it; a lowering that needs it is refused where there is
// none.
StatusOr<Matrix> BaseWeight(const LoweringContext& context, SiteRef site);
// [out]; zeros where the base has no bias there.
StatusOr<std::vector<float>> BaseBias(const LoweringContext& context, SiteRef site);

}  // namespace polyad
