#pragma once

// How many threads a kernel is launched with, and the limits every supported GPU has (CUDA C++
// Programming Guide, "Compute Capabilities": 8.0 to 10.0; the smallest shared memory is 8.6's and
// 8.9's). Sizes in bytes. Plain data, any thread.

#include <cstdint>

namespace polyad::simt {

inline constexpr int kWarpThreads = 32;
inline constexpr int kMaxBlockThreads = 1024;
inline constexpr int64_t kMaxBlocks = 2147483647;
inline constexpr int kMaxStaticShared = 48 * 1024;
inline constexpr int kMaxShared = 99 * 1024;

struct LaunchShape {
  int64_t blocks = 1;
  int threads = kWarpThreads;  // a multiple of kWarpThreads
  int shared_bytes = 0;        // dynamic shared memory
};

}  // namespace polyad::simt
