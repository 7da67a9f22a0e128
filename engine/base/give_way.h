#pragma once

// Long work beside the engine (adapter loads) runs in slices: it calls GiveWay between small
// pieces, and after kSlice of work whoever waits for this core runs first. The kernel alone would
// change over at its tick only, up to 4 ms later: a fifth of a decode step. Any thread; costs a
// clock reading.

#include <sched.h>

#include <chrono>

namespace polyad {

inline constexpr std::chrono::microseconds kSlice{200};

inline void GiveWay() {
  using std::chrono::steady_clock;
  static thread_local steady_clock::time_point begin = steady_clock::now();
  if (steady_clock::now() - begin < kSlice) return;
  sched_yield();
  begin = steady_clock::now();
}

}  // namespace polyad
