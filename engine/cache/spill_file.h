#pragma once

// Equal-sized slots in a file without a name, which goes with the process: what K/V blocks are
// spilled to beyond memory. It is created in a directory of the operator's choice, readable by
// nobody else. Engine thread only. Errors: UNAVAILABLE with what the system said.

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "engine/base/status.h"

namespace polyad {

class SpillFile {
 public:
  static StatusOr<std::unique_ptr<SpillFile>> Create(const std::string& directory,
                                                     int64_t slot_bytes);
  ~SpillFile();
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;

  Status Write(int64_t slot, std::span<const char> bytes);  // slot_bytes of them
  Status Read(int64_t slot, std::span<char> bytes) const;

 private:
  SpillFile(int descriptor, int64_t slot_bytes)
      : descriptor_(descriptor), slot_bytes_(slot_bytes) {}

  const int descriptor_;
  const int64_t slot_bytes_;
};

}  // namespace polyad
