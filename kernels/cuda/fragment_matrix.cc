#include "kernels/cuda/fragment_matrix.h"

#include "kernels/cuda/device_rows.h"
#include "kernels/simt/simt.h"

namespace polyad::cuda {

std::vector<uint16_t> PackFragments(int64_t rows, int64_t cols,
                                    const std::function<float(int64_t, int64_t)>& element) {
  const int64_t col_tiles = DivideUp(cols, kTile);
  std::vector<uint16_t> packed;
  packed.reserve(static_cast<size_t>(DivideUp(rows, kTile) * col_tiles * kTileElements));
  for (int64_t tile = 0; tile < DivideUp(rows, kTile) * col_tiles; ++tile) {
    for (int at = 0; at < kTileElements; ++at) {
      const TilePlace place = PlaceInFragment(at / kFragmentElements, at % kFragmentElements);
      const int64_t row = tile / col_tiles * kTile + place.row;
      const int64_t col = tile % col_tiles * kTile + place.col;
      const bool inside = row < rows && col < cols;
      packed.push_back(simt::ToBf16(inside ? element(row, col) : 0.0f).bits);
    }
  }
  return packed;
}

}  // namespace polyad::cuda
