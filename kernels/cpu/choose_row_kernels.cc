#include "kernels/cpu/choose_row_kernels.h"

namespace polyad::cpu {

const RowKernels& RowKernelsOf(Isa isa) {
  static const RowKernels at_scalar = scalar::MakeRowKernels();
  static const RowKernels at_avx2 = avx2::MakeRowKernels();
  static const RowKernels at_avx512 = avx512::MakeRowKernels();
  switch (isa) {
    case Isa::kScalar:
      return at_scalar;
    case Isa::kAvx2:
      return at_avx2;
    case Isa::kAvx512:
    case Isa::kAmx:
      break;
  }
  return at_avx512;
}

}  // namespace polyad::cpu
