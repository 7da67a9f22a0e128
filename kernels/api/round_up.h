#pragma once

// Sizes padded to whole units: of a vector, a tile, a cache line, a page. Pure.

#include <cstdint>

namespace polyad {

// The least multiple of `unit` that is not below `value`; both positive, or value 0.
constexpr int64_t RoundUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace polyad
