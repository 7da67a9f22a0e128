#pragma once

// CHECK for broken invariants of our own code: prints the condition, file, line and a message, then
// aborts. Never used for anything the outside world can cause (that is a Status). DCHECK vanishes
// in release builds.

#include <cstdio>
#include <cstdlib>

namespace polyad {

[[noreturn]] inline void CheckFailed(const char* condition, const char* file, int line,
                                     const char* message) {
  std::fprintf(stderr, "%s:%d: invariant broken: %s (%s)\n", file, line, condition, message);
  std::abort();
}

}  // namespace polyad

#define POLYAD_CHECK(condition, message)                                              \
  do {                                                                                \
    if (!(condition)) ::polyad::CheckFailed(#condition, __FILE__, __LINE__, message); \
  } while (false)

#ifdef NDEBUG
#define POLYAD_DCHECK(condition, message) \
  do {                                    \
  } while (false)
#else
#define POLYAD_DCHECK(condition, message) POLYAD_CHECK(condition, message)
#endif
