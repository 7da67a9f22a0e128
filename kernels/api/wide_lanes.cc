#include "kernels/api/wide_lanes.h"

#include <atomic>

namespace polyad {
namespace {

std::atomic<bool>& Allowed() {
  static std::atomic<bool> allowed{true};
  return allowed;
}

bool MachineHasThem() {
#if defined(__x86_64__)
  static const bool has =
      __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0;
  return has;
#else
  return false;
#endif
}

}  // namespace

bool UsesWideLanes() { return Allowed().load(std::memory_order_relaxed) && MachineHasThem(); }

void AllowWideLanes(bool allowed) { Allowed().store(allowed, std::memory_order_relaxed); }

}  // namespace polyad
