#pragma once

// From one row's scores to coefficients of experts: which are chosen, and a softmax over those.
// What a site's mixtures (mixture.h) and a first pass's classifier (scaling_pass_runner.h) share.
// At most kMaxExperts of them, so no memory is asked for. Pure functions; engine thread.

#include <array>
#include <cstdint>
#include <span>

#include "engine/adapters/adapter_program.h"

namespace polyad {

using ExpertList = std::array<int64_t, static_cast<size_t>(kMaxExperts)>;

// The k experts of the largest values, the largest first; of equal ones the lower first. They lie
// in `list`.
std::span<const int64_t> LargestOf(std::span<const float> values, int64_t k, ExpertList& list);

// values = softmax(values / temperature) over the chosen ones; the others become zero.
void SoftmaxOver(std::span<const int64_t> chosen, float temperature, std::span<float> values);

}  // namespace polyad
