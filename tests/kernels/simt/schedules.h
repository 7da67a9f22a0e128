#pragma once

// Every way the emulator can run a launch, for tests that hold under each: both orders, two random
// ones, two OS threads, and the portable switch of stacks.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/simt/emulated_block.h"

namespace polyad::simt {

inline std::vector<EmulatorOptions> Schedules() {
#if defined(POLYAD_TSAN)
  // Races show in any order; what another order changes besides shows without it, in less time.
  return {{.order = Order::kRandom, .seed = 1}, {.order = Order::kForward, .os_threads = 2}};
#endif
  return {{.order = Order::kForward},
          {.order = Order::kReverse},
          {.order = Order::kRandom, .seed = 1},
          {.order = Order::kRandom, .seed = 2},
          {.order = Order::kForward, .os_threads = 2},
          {.order = Order::kReverse, .portable_switch = true}};
}

inline std::string NameOfSchedule(const testing::TestParamInfo<EmulatorOptions>& test) {
  const EmulatorOptions& options = test.param;
  std::string name = options.order == Order::kForward   ? "forward"
                     : options.order == Order::kReverse ? "reverse"
                                                        : "random" + std::to_string(options.seed);
  if (options.os_threads > 1) name += "_threads";
  if (options.portable_switch) name += "_portable";
  return name;
}

}  // namespace polyad::simt
