#include "engine/cache/swap_cost.h"

#include "kernels/api/backend.h"

namespace polyad {
namespace {

constexpr double kNewest = 0.125;  // weight of the newest of the running mean

// Of what copying took, what a step takes off while copying does not pay.
constexpr double kForgiven = 0.999;

// Steps of fewer rows read the weights for too few of them to tell what a prompt's row costs.
constexpr int64_t kPromptRows = 32;

void Blend(double seen, double& mean) { mean = mean == 0 ? seen : mean + kNewest * (seen - mean); }

}  // namespace

void SwapCost::SawStep(int64_t num_rows, int64_t elapsed_us) {
  if (!RestorePays()) us_per_block_ *= kForgiven;  // so that it is tried again
  if (num_rows < kPromptRows) return;
  Blend(static_cast<double>(elapsed_us) / static_cast<double>(num_rows), us_per_row_);
}

void SwapCost::SawRestore(int64_t num_blocks, int64_t elapsed_us) {
  if (num_blocks < 1) return;
  Blend(static_cast<double>(elapsed_us) / static_cast<double>(num_blocks), us_per_block_);
}

double SwapCost::us_per_token() const { return us_per_row_; }

bool SwapCost::RestorePays() const {
  return us_per_row_ == 0 || us_per_block_ <= us_per_row_ * static_cast<double>(kBlockTokens);
}

}  // namespace polyad
