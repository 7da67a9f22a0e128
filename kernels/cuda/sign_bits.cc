#include "kernels/cuda/sign_bits.h"

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/fragment_matrix.h"

namespace polyad::cuda {

std::vector<uint32_t> PackSigns(std::span<const uint32_t> bits, int64_t out, int64_t in) {
  const int64_t blocks = DivideUp(in, kSignInputs);
  const int64_t row_words = DivideUp(in, 32);
  std::vector<uint32_t> words(static_cast<size_t>(DivideUp(out, kTile) * blocks * 32));
  for (size_t at = 0; at < words.size(); ++at) {
    const auto tile = static_cast<int64_t>(at / 32);
    for (int bit = 0; bit < 32; ++bit) {
      const TilePlace place = PlaceInFragment(static_cast<int>(at % 32), bit % kFragmentElements);
      const int64_t row = tile / blocks * kTile + place.row;
      const int64_t col = tile % blocks * kSignInputs + bit / kFragmentElements * kTile + place.col;
      if (row >= out || col >= in) continue;
      const uint32_t word = bits[static_cast<size_t>(row * row_words + col / 32)];
      words[at] |= (word >> (col % 32) & 1u) << bit;
    }
  }
  return words;
}

std::vector<std::vector<WorkItem>> PlanSigns(std::span<const SignSegment> segments, bool exact) {
  const int64_t width = exact ? kExactSignOutputs : kSignOutputs;
  return ItemsByWave(
      segments, exact ? 1 : kSignRows, [](const SignSegment& s) { return int64_t{s.out}; },
      [width](const SignSegment& s) { return DivideUp(s.out, width); });
}

}  // namespace polyad::cuda
