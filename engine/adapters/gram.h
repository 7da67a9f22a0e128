#pragma once

// Gram matrices of an adapter's factors, for the norms in its load report and DoRA's row lengths.
// Numbers are read as they lie (f32, f16 or bf16); at most kGramPiece products are summed in fp32
// before they go to fp64, so a result is off by a few parts in ten million of |m|^2. Pure
// functions; loader threads.

#include <cstdint>
#include <vector>

#include "kernels/api/tensor_view.h"

namespace polyad {

inline constexpr int64_t kGramPiece = 512;

std::vector<double> RowGram(const TensorView& m);     // m m': [rows, rows]
std::vector<double> ColumnGram(const TensorView& m);  // m' m: [cols, cols]

}  // namespace polyad
