#pragma once

// Picks a kernel over integer codes by what the groups of its panel are. Static, and over types of
// the file that includes it, so that files compiled for wide instructions share no code.

#include "kernels/cpu/gemm_kernels.h"

namespace polyad::cpu {

template <template <int, bool, bool> class Groups, int kHalves, bool kMinima, typename Run>
static inline void ForNumbers(bool f16, Run run) {
  if (f16) return run(Groups<kHalves, kMinima, true>{});
  run(Groups<kHalves, kMinima, false>{});
}

// run(Groups<halves of a block that have a group each, with minima, of f16>{})
template <template <int, bool, bool> class Groups, typename Run>
static inline void ForGroups(const IntegerScaling& scaling, Run run) {
  const bool minima = scaling.minima != nullptr;
  if (scaling.blocks_per_group == 0) {
    return minima ? ForNumbers<Groups, 2, true>(scaling.f16, run)
                  : ForNumbers<Groups, 2, false>(scaling.f16, run);
  }
  return minima ? ForNumbers<Groups, 1, true>(scaling.f16, run)
                : ForNumbers<Groups, 1, false>(scaling.f16, run);
}

}  // namespace polyad::cpu
