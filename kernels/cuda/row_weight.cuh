#pragma once

// What a row of a segment counts: the segment's scale times the row's own, where it has one. A
// segment is any with row_begin, scale and row_scale ([row_end - row_begin] or null).

#include "kernels/simt/simt.h"

namespace polyad::cuda {

template <typename Segment>
SIMT_FUNCTION float RowWeight(const Segment& s, int64_t row) {
  return s.row_scale == nullptr ? s.scale : s.scale * s.row_scale[row - s.row_begin];
}

}  // namespace polyad::cuda
