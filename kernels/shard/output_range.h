#pragma once

// Columns of rows that the ranks of a group have computed a part of each: whole units of them
// (weight_shard.h, SliceOf). Pure.

#include <cstdint>

#include "kernels/shard/weight_shard.h"

namespace polyad {

// Outputs that stay together where there are enough of them: panels of the CPU backend and tiles of
// the CUDA backend are no wider, so a rank's are laid out as a whole matrix's are.
inline constexpr int64_t kOutputUnit = 64;

constexpr int64_t OutputUnit(int64_t out, int size) {
  int64_t unit = kOutputUnit;
  while (unit > 1 && out < unit * size) unit /= 2;
  return unit;
}

struct OutputRange {
  int64_t column = 0;  // of the rows, the first
  int64_t out = 0;
  int64_t unit = 1;

  // Rank's own, counted from `column`; empty where there are fewer units than ranks.
  Slice Of(int rank, int size) const { return SliceOf(out, unit, rank, size); }
  int64_t Widest(int size) const { return Of(0, size).size(); }
  bool Overlaps(const OutputRange& other) const {
    return column < other.column + other.out && other.column < column + out;
  }
  friend bool operator==(const OutputRange&, const OutputRange&) = default;
};

}  // namespace polyad
