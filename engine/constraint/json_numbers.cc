#include "engine/constraint/json_numbers.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace polyad {
namespace {

// Magnitudes whose decimal digits, padded with zeros to `decimals` + 1, have a point before the
// last `decimals`.
class DigitEmitter {
 public:
  DigitEmitter(GrammarBuilder& builder, int decimals) : builder_(builder), decimals_(decimals) {}

  // Every integer of [low, high], 0 <= low <= high.
  void Emit(NodeId from, int64_t low, int64_t high, NodeId to) {
    const auto shortest = static_cast<size_t>(decimals_) + 1;
    while (low <= high) {
      std::string first = std::to_string(low);
      if (first.size() < shortest) first.insert(0, shortest - first.size(), '0');
      // Of one length at a time.
      int64_t end = 1;
      for (size_t i = 0; i < first.size(); ++i) end *= 10;
      const int64_t last_value = std::min(high, end - 1);
      std::string last = std::to_string(last_value);
      if (last.size() < first.size()) last.insert(0, first.size() - last.size(), '0');
      Between(from, first, last, to);
      low = last_value + 1;
    }
  }

 private:
  // Digit strings of one length from `low` to `high`.
  void Between(NodeId from, std::string_view low, std::string_view high, NodeId to) {
    from = Point(from, low.size());
    if (low.size() == 1) return builder_.Bytes(from, Byte(low[0]), Byte(high[0]), to);
    const auto branch = [&](char first, char last, const std::string& a, const std::string& b) {
      const NodeId next = builder_.AddNode();
      builder_.Bytes(from, Byte(first), Byte(last), next);
      Between(next, a, b, to);
    };
    const std::string low_rest(low.substr(1));
    const std::string high_rest(high.substr(1));
    const std::string zeros(low_rest.size(), '0');
    const std::string nines(low_rest.size(), '9');
    if (low[0] == high[0]) return branch(low[0], low[0], low_rest, high_rest);
    char first = low[0];
    char last = high[0];
    if (low_rest != zeros) branch(first++, low[0], low_rest, nines);
    if (high_rest != nines) branch(last--, high[0], zeros, high_rest);
    if (first <= last) branch(first, last, zeros, nines);
  }
  NodeId Point(NodeId from, size_t digits_left) {
    if (decimals_ == 0 || digits_left != static_cast<size_t>(decimals_)) return from;
    return builder_.Literal(from, ".");
  }
  static uint8_t Byte(char c) { return static_cast<uint8_t>(c); }

  GrammarBuilder& builder_;
  const int decimals_;
};

bool Satisfies(double value, const NumberBounds& bounds) {
  const bool above = !bounds.low.has_value() || value > *bounds.low ||
                     (value == *bounds.low && !bounds.low_is_excluded);
  const bool below = !bounds.high.has_value() || value < *bounds.high ||
                     (value == *bounds.high && !bounds.high_is_excluded);
  return above && below;
}

// The largest range of integers n whose n / scale satisfies the bounds and is at most `most` away
// from zero. A quotient of two exact doubles is the double that a reader makes of its digits.
struct Range {
  int64_t low = 0;
  int64_t high = 0;
};
Range RangeOf(const NumberBounds& bounds, double scale, int64_t most) {
  const auto limit = static_cast<double>(most);
  const double low = std::clamp(bounds.low.value_or(-limit) * scale, -limit, limit);
  const double high = std::clamp(bounds.high.value_or(limit) * scale, -limit, limit);
  Range range = {std::max(-most, static_cast<int64_t>(std::floor(low)) - 2),
                 std::min(most, static_cast<int64_t>(std::ceil(high)) + 2)};
  // Rounding may put the ends a little to either side; both are looked for within a few steps.
  const auto satisfies = [&](int64_t n) {
    return Satisfies(static_cast<double>(n) / scale, bounds);
  };
  for (int i = 0; i < 8 && range.low <= range.high && !satisfies(range.low); ++i) ++range.low;
  for (int i = 0; i < 8 && range.low <= range.high && !satisfies(range.high); ++i) --range.high;
  if (range.low <= range.high && !(satisfies(range.low) && satisfies(range.high))) {
    range = {1, 0};
  }
  return range;
}

bool EmitScaled(GrammarBuilder& builder, NodeId from, const Range& range, int decimals, NodeId to) {
  if (range.low > range.high) return false;
  DigitEmitter digits(builder, decimals);
  if (range.high >= 0) digits.Emit(from, std::max<int64_t>(range.low, 0), range.high, to);
  if (range.low < 0) {
    const int64_t smallest = std::max<int64_t>(-range.high, 1);  // no -0
    digits.Emit(builder.Literal(from, "-"), smallest, -range.low, to);
  }
  return true;
}

Status NoNumber() {
  return InvalidArgument(
      "expected bounds with a number of at most 15 digits between them, got none");
}

}  // namespace

StatusOr<NodeId> EmitInteger(GrammarBuilder& builder, NodeId from, const NumberBounds& bounds) {
  const NodeId to = builder.AddNode();
  if (!EmitScaled(builder, from, RangeOf(bounds, 1, kMaxBoundedInteger), 0, to)) return NoNumber();
  return to;
}

StatusOr<NodeId> EmitDecimal(GrammarBuilder& builder, NodeId from, const NumberBounds& bounds) {
  const NodeId to = builder.AddNode();
  double largest = static_cast<double>(kMaxBoundedInteger);
  if (bounds.low.has_value() && bounds.high.has_value()) {
    largest = std::max(std::abs(*bounds.low), std::abs(*bounds.high));
  }
  bool any = false;
  double scale = 1;
  for (int decimals = 0; decimals <= kMaxBoundedDecimals; ++decimals, scale *= 10) {
    // One-sided bounds leave more places to smaller numbers.
    const double most =
        std::min(std::max(largest, 1.0) * scale, static_cast<double>(kMaxBoundedInteger));
    const Range range = RangeOf(bounds, scale, static_cast<int64_t>(most));
    any = EmitScaled(builder, from, range, decimals, to) || any;
  }
  if (!any) return NoNumber();
  return to;
}

}  // namespace polyad
