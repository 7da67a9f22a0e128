// Faults planted into the kernels (kernels/simt/mutation.h), one at a time: each must be found by
// what the other tests check, a fault of the emulator or a number out of its bounds. The table
// names every mutant in the sources and the work that it spoils, but for those of the host's code
// (recorded_steps_test.cc).
// covers: kernels/cuda/fragments.cuh

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/simt/mutation.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/cuda/mutant_work.h"
#include "tests/kernels/cuda/mutants_in_sources.h"
#include "tests/kernels/simt/schedules.h"

namespace polyad::test {
namespace {

struct Mutant {
  std::string_view name;
  std::string_view work;  // of mutant_work.h, or the name of a conformance case
};

constexpr Mutant kMutants[] = {
    {"load_rows.second_half", "low_rank_few"},
    {"shared_rows.half", "low_rank_many"},
    {"shrink.accumulator_row", "low_rank_few"},
    {"shrink.no_barrier", "low_rank_few"},
    {"shrink.forgets_a_warp", "low_rank_few"},
    {"shrink_many.no_wait", "low_rank_many"},
    {"shrink_many.no_barrier_after_wait", "low_rank_many"},
    {"shrink_many.no_barrier_before_copy", "low_rank_many"},
    {"shrink_many.wrong_stage", "low_rank_many"},
    {"expand.accumulator_col", "low_rank_few"},
    {"expand.row_mask", "low_rank_few"},
    {"expand_many.waits_for_too_little", "low_rank_many"},
    {"expand_many.no_barrier_after_wait", "low_rank_many"},
    {"expand_many.no_barrier_before_copy", "low_rank_many"},
    {"shrink_exact.forgets_a_lane", "low_rank_exact"},
    {"row_sum.forgets_a_lane", "rms_norm/rows:3/cols:576"},
    {"row_sum.no_barrier_before_read", "rms_norm/rows:3/cols:576"},
    {"row_sum.no_barrier_after_read", "layer_norm/rows:3/cols:576"},
    {"activate.gate_column", "silu_gated/rows:3/cols:160"},
    {"vectors.last_column", "delta_bias/rows:6"},
    {"argmax.ties", "argmax/rows:3/cols:2049"},
    {"signs.high_half", "delta_sign_bits/rows:6"},
    {"signs.group_not_cleared", "delta_sign_bits_groups/rows:6"},
    {"signs.group_begins_late", "delta_sign_bits_groups/rows:6"},
    {"argmax.no_barrier", "argmax/rows:3/cols:2049"},
    {"draw.largest_forgets_a_lane", "draw_likely"},
    {"draw.no_barrier_before_largest", "draw_all"},
    {"draw.sum_forgets_a_lane", "draw_all"},
    {"draw.sum_forgets_the_rest", "draw_all"},
    {"draw.no_barrier_after_sums", "draw_all"},
    {"draw.no_barrier_before_walk", "draw_all"},
    {"draw.no_barrier_after_count", "draw_likely"},
    {"draw.scan", "draw_likely"},
    {"draw.head_too_long", "draw_likely"},
    {"draw.ties", "draw_likely"},
    {"draw.no_barrier_before_sort", "draw_likely"},
    {"draw.sort_falls", "draw_likely"},
    {"draw.no_barrier_in_sort", "draw_likely"},
    {"draw.top_p_of_all", "draw_likely"},
    {"rotate.norm_forgets_a_lane", "attend_short"},
    {"rotate.other_way", "attend_short"},
    {"store.last_column", "attend_short"},
    {"attend.window_mask", "attend_short"},
    {"attend.causal_mask", "attend_short"},
    {"attend.copies_past_the_end", "attend_short"},
    {"attend.quarters", "attend_short"},
    {"attend.max_of_half", "attend_short"},
    {"attend.no_rescale", "attend_short"},
    {"attend.weight_quarters", "attend_short"},
    {"attend.forgets_a_lane", "attend_short"},
    {"attend.no_wait", "attend_short"},
    {"attend.no_barrier", "attend_short"},
    {"attend.copies_too_early", "attend_short"},
    {"attend.span_goes_on", "attend_long"},
    {"unpack.past_the_end", "attend_int8"},
    {"unpack.no_barrier", "attend_int8"},
    {"kv_codes.turn_sign", "attend_int4"},
    {"kv_codes.turn_stops_early", "attend_int4"},
    {"kv_codes.group_of_column", "attend_int8"},
    {"kv_codes.no_fifth_bit", "attend_int4"},
    {"store_codes.no_barrier", "attend_int8"},
    {"attend.turned_query", "attend_int4"},
    {"merge.turned_factor", "attend_int4"},
    {"attend_exact.no_barrier", "attend_short_exact"},
    {"prefix.no_barrier", "gated_prefix/rows:2/keys:7/heads:14x20over2"},
    {"prefix.forgets_a_lane", "gated_prefix/rows:2/keys:7/heads:14x20over2"},
    {"merge.forgets_a_slot", "attend_long"},
    {"codes.float8_bias", "product_float8"},
    {"codes.order", "gemm_q8_0/rows:3/in:64/out:50"},
    {"codes.group", "product_groups"},
    {"codes.no_rest", "product_levels"},
    {"codes.offset_row", "product_groups"},
    {"product.no_zeros_behind", "delta_bottleneck_tanh/rows:6"},
    {"product_few.no_barrier", "gemm_bf16/rows:3/in:64/out:50"},
    {"product_few.forgets_a_warp", "gemm_bf16/rows:3/in:64/out:50"},
    {"product_many.no_wait", "product_many"},
    {"product_many.no_barrier_after_wait", "product_many"},
    {"product_many.no_barrier_before_copy", "product_many"},
    {"product_many.no_barrier_between_warps", "product_many"},
    {"product_many.wrong_stage", "product_many"},
    {"product_exact.forgets_a_lane", "gemm_bf16/rows:3/in:64/out:50_exact"},
    {"embed.place", "embed_bf16/rows:5/cols:96"},
    {"sparse.forgets_a_lane", "delta_sparse/rows:6"},
    {"sparse.row_mask", "delta_sparse/rows:6"},
    {"kronecker.no_barrier", "delta_kronecker_4x4_24x24/rows:6"},
    {"kronecker.own_row", "delta_kronecker_20x12_3x4/rows:6"},
    {"kronecker.no_barrier_before_next", "delta_kronecker_3x37_5x2/rows:6"},
    {"pairs.sign", "delta_pair_rotation_64_64/rows:6"},
    {"blocks.order", "delta_block_rotation_96_4_ordered/rows:6"},
    {"embedding.search", "delta_embedding_rows/rows:6"},
    {"embedding.last_rank", "delta_embedding_low_rank/rows:6"},
    {"move.last_column", "move/rows:3/cols:37"},
};

// What is wrong with the work's results under one schedule; empty: nothing.
std::string WrongWith(std::string_view work, const simt::EmulatorOptions& options) {
  const ComputeMode mode = ModeOf(work);
  EmulatedBackend backend(mode, options);
  ref::ReferenceBackend reference(mode);
  const Outcome got = DoWork(work, backend);
  if (!backend.fault().empty()) return backend.fault();
  const Outcome want = DoWork(work, reference);
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < want.values.size(); ++i) {
    const double off = std::abs(got.values[i] - want.values[i]);
    if (!(off <= want.tolerance[i])) return "element " + std::to_string(i) + " is wrong";
    error += off * off;
    norm += want.values[i] * want.values[i];
  }
  return std::sqrt(error) <= want.norm_tolerance * std::sqrt(norm) ? "" : "the whole is wrong";
}

std::string FirstWrong(std::string_view work) {
  for (const simt::EmulatorOptions& options : simt::Schedules()) {
    std::string wrong = WrongWith(work, options);
    if (!wrong.empty()) return wrong;
  }
  return "";
}

TEST(MutantTest, TheWorkIsRightWithoutOne) {
  std::set<std::string_view> works;
  for (const Mutant& mutant : kMutants) works.insert(mutant.work);
  for (const std::string_view work : works) EXPECT_EQ(FirstWrong(work), "") << work;
}

TEST(MutantTest, EachIsFound) {
  for (const Mutant& mutant : kMutants) {
    simt::planted_mutant = simt::MutantId(mutant.name);
    const std::string wrong = FirstWrong(mutant.work);
    simt::planted_mutant = 0;
    EXPECT_NE(wrong, "") << mutant.name << " survives";
  }
}

TEST(MutantTest, TheTableNamesEveryMutantInTheSources) {
  std::set<std::string> named;
  for (const Mutant& mutant : kMutants) named.insert(std::string(mutant.name));
  std::set<std::string> planted = MutantsInSources();
  std::erase_if(planted, [](const std::string& name) { return name.starts_with(kQueueMutant); });
  EXPECT_EQ(named, planted);
}

}  // namespace
}  // namespace polyad::test
