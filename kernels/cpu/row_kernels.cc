#include "kernels/cpu/row_kernels.h"

#include "kernels/cpu/isa_functions.h"

namespace polyad::cpu::POLYAD_ISA {

RowKernels MakeRowKernels() {
  return {Norm,
          Rotate,
          StoreToken,
          Activate,
          ArgMax,
          AddRow,
          MakeSiteKernels(),
          MakeAttentionKernels(),
          MakeCodedAttentionKernels(),
          DecodeGroupedPanel,
          DecodeGroupedScaling};
}

}  // namespace polyad::cpu::POLYAD_ISA
