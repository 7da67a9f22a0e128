#pragma once

// Keys and values that one layer of the base makes of given rows, computed while loading, in fp64:
// [n, hidden] -> [n, 2 * kv width], a row's keys and then its values. Loader thread.
// FAILED_PRECONDITION where no base is at hand. Sources: LLaMA-Adapter (Zhang et al. 2023), whose
// learned vectors go through k_proj and v_proj alone; VPT (Jia et al. 2022), whose deep prompts
// stand among a layer's inputs: with causal attention they see only each other's predecessors and
// nothing of what they compute is read but these keys and values.

#include <cstdint>
#include <vector>

#include "engine/adapters/dense_math.h"
#include "engine/adapters/lowering_context.h"
#include "engine/base/status.h"

namespace polyad {

// The projections alone: no norm, no rotation.
StatusOr<std::vector<float>> KeysAndValuesOf(const LoweringContext& context, int64_t layer,
                                             Matrix rows);

// As if the rows entered the layer at positions 0, 1, ...: normed, projected, keys normed head by
// head where the base does so, and rotated.
StatusOr<std::vector<float>> KeysAndValuesOfStates(const LoweringContext& context, int64_t layer,
                                                   Matrix rows);

}  // namespace polyad
