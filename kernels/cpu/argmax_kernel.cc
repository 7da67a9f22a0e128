// The first index of the largest value, and y += x. The row is read once for its maximum, run by
// run; only the first run that holds it is searched.

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/lanes.h"

namespace polyad::cpu::POLYAD_ISA {
namespace {

constexpr int64_t kRun = 2048;  // values; the search costs 1/24 of a 49152-wide row
constexpr float kLowest = -__builtin_inff();

float MaxOfRun(const float* x, int64_t cols) {
  Lanes max[4] = {Set(kLowest), Set(kLowest), Set(kLowest), Set(kLowest)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= cols; i += 4 * kLanes) {
    for (int64_t part = 0; part < 4; ++part)
      max[part] = Max(Load(x + i + part * kLanes), max[part]);
  }
  for (; i < cols; i += kLanes) {
    const int64_t valid = cols - i < kLanes ? cols - i : kLanes;
    max[0] = Max(KeepBetween(LoadFirst(x + i, valid), 0, valid, Set(kLowest)), max[0]);
  }
  return MaxOf(Max(Max(max[0], max[1]), Max(max[2], max[3])));
}

}  // namespace

int64_t ArgMax(const float* x, int64_t cols) {
  float best = kLowest;
  int64_t best_begin = 0;
  for (int64_t begin = 0; begin < cols; begin += kRun) {
    const float max = MaxOfRun(x + begin, cols - begin < kRun ? cols - begin : kRun);
    if (max > best) {
      best = max;
      best_begin = begin;
    }
  }
  for (int64_t i = best_begin; i < cols; ++i) {
    if (x[i] == best) return i;
  }
  return 0;
}

void AddRow(const float* x, float* y, int64_t cols) {
  for (int64_t i = 0; i < cols; i += kLanes) {
    const int64_t valid = cols - i < kLanes ? cols - i : kLanes;
    StoreFirst(y + i, LoadFirst(y + i, valid) + LoadFirst(x + i, valid), valid);
  }
}

}  // namespace polyad::cpu::POLYAD_ISA
