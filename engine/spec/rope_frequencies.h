#pragma once

// How a rotary embedding turns. Pair i of a head, of rotary_dim / 2, turns by position * f(i) with
// f(i) = theta^(-2i / rotary_dim), scaled as transformers 5.19 does (modeling_rope_utils), in fp32
// and operation for operation:
//   kLinear    f / factor
//   kLlama3    f / factor for long wavelengths, f for short ones, a blend between
//   kYarn      likewise, by how often a pair turns within the original positions (Peng et al. 2023)
//   kDynamic   f of a larger theta, the larger the longer the context (NTK-aware)
//   kLongRope  f / a factor of each pair's own, from one list up to the original positions and from
//              another beyond (Ding et al. 2024)
// Frequency factors, where there are any, divide f too. Under kDynamic and kLongRope frequencies
// depend on how long the context is, and a key once stored stays as it was rotated. So a sequence
// is given one *reach* for its whole life, a bound of its context that is known before its first
// token runs (docs/decisions/0008-one-rotation-for-a-sequence.md). Pure functions.

#include <cstdint>
#include <vector>

#include "engine/base/status.h"
#include "engine/spec/model_spec.h"

namespace polyad {

// f(i) for each pair, [rotary_dim / 2], in contexts of up to `reach` tokens; 0: the shortest.
std::vector<float> RopeFrequencies(const RopeSpec& rope, int64_t reach = 0);

// The bounds that contexts of up to `max_context` tokens are told apart by, ascending; the last is
// max_context. One alone where the frequencies do not depend on the context.
std::vector<int64_t> RopeReaches(const RopeSpec& rope, int64_t max_context);
// Which of them a context of `num_tokens` has: the first that holds it, else the last.
int64_t RopeChoice(const std::vector<int64_t>& reaches, int64_t num_tokens);

// The longest context of a model that says `max_position`: scalings whose configurations keep what
// it was before they came say by their factor how much longer it is.
int64_t ScaledMaxPosition(const RopeSpec& rope, int64_t max_position);

// Whether two turn by the same angles, but for rounding, in contexts of up to `max_position`.
bool TurnAlike(const RopeSpec& a, const RopeSpec& b, int64_t max_position);

// INVALID_ARGUMENT where the numbers do not make a rotation of heads of `head_dim` elements.
Status CheckRope(const RopeSpec& rope, int64_t head_dim);

}  // namespace polyad
