#pragma once

// KERNEL_CHECK for broken invariants at a backend's door (shapes the engine promised): prints and
// aborts. The kernels' own, because nothing below engine/ may include engine/base/check.h.

#include <cstdio>
#include <cstdlib>

namespace polyad {

[[noreturn]] inline void KernelCheckFailed(const char* condition, const char* file, int line,
                                           const char* message) {
  std::fprintf(stderr, "%s:%d: invariant broken: %s (%s)\n", file, line, condition, message);
  std::abort();
}

}  // namespace polyad

#define KERNEL_CHECK(condition, message)                                                    \
  do {                                                                                      \
    if (!(condition)) ::polyad::KernelCheckFailed(#condition, __FILE__, __LINE__, message); \
  } while (false)
