#pragma once

// What the process has and used, under the names that every Prometheus client library gives it.
// Reads /proc/self and getrusage; any thread. Where /proc cannot be read a value is 0.

#include <cstdint>

namespace polyad {

struct ProcessUsage {
  int64_t resident_bytes = 0;
  double cpu_seconds = 0;   // user and system, all threads, since the start
  double start_unix_s = 0;  // when the process began, seconds since 1970
};

ProcessUsage ReadProcessUsage();

}  // namespace polyad
