#pragma once

// Whether it is cheaper to copy a block back than to compute its tokens again, from what both were
// seen to take: running means, so that a slow disk or a fast machine is noticed. Before anything
// was seen, copying is. Engine thread only.

#include <cstdint>

namespace polyad {

class SwapCost {
 public:
  void SawStep(int64_t num_rows, int64_t elapsed_us);
  void SawRestore(int64_t num_blocks, int64_t elapsed_us);
  bool RestorePays() const;
  double us_per_token() const;  // to compute it again; 0: not seen

 private:
  double us_per_row_ = 0;  // 0: not seen
  double us_per_block_ = 0;
};

}  // namespace polyad
