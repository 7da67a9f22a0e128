#pragma once

// What the reconciler (adapter_reconciler.h) shows of itself. Plain values.

#include <cstdint>
#include <string>

namespace polyad {

struct ReconcileCounts {
  int64_t declared = 0;   // adapters of the file
  int64_t in_place = 0;   // of those, as declared
  int64_t failing = 0;    // names whose last try failed
  bool is_stale = false;  // the newest file is not in force
  std::string file_error;
  int64_t loads = 0;  // these since the start
  int64_t unloads = 0;
  int64_t failures = 0;
  int64_t files_taken = 0;
  int64_t files_refused = 0;
};

struct ReconcileFailure {
  std::string name;
  std::string error;
  int64_t tries = 0;
  int64_t retry_in_ms = 0;
};

}  // namespace polyad
