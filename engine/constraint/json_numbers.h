#pragma once

// JSON numbers within bounds, digit by digit: the integers of a range as a union of fixed-length
// digit patterns, and decimals as the same with a point in them. Every number emitted satisfies its
// bounds as a double; numbers have at most 15 significant digits and no exponent, and decimals at
// most kMaxBoundedDecimals places.

#include <cstdint>
#include <optional>

#include "engine/constraint/grammar.h"

namespace polyad {

inline constexpr int kMaxBoundedDecimals = 6;
inline constexpr int64_t kMaxBoundedInteger = 999'999'999'999'999;  // 15 digits

struct NumberBounds {
  std::optional<double> low;
  std::optional<double> high;
  bool low_is_excluded = false;
  bool high_is_excluded = false;
  bool empty() const { return !low.has_value() && !high.has_value(); }
};

// INVALID_ARGUMENT where no number of at most 15 digits lies between the bounds.
StatusOr<NodeId> EmitInteger(GrammarBuilder& builder, NodeId from, const NumberBounds& bounds);
StatusOr<NodeId> EmitDecimal(GrammarBuilder& builder, NodeId from, const NumberBounds& bounds);

}  // namespace polyad
