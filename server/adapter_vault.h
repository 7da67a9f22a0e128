#pragma once

// The server's own copies of adapters, STATE/adapters/N: what was digested when it was loaded is
// what is read again, whatever a tenant does to the directory it came from. Copies are on disk
// before Take returns. Thread-safe. Errors: those of file.h and durable_file.h, RESOURCE_EXHAUSTED
// where a directory has more than kMaxFiles or files of more than the limit together.

#include <atomic>
#include <cstdint>
#include <set>
#include <string>

#include "engine/base/status.h"
#include "engine/io/file.h"

namespace polyad {

class AdapterVault {
 public:
  static constexpr int64_t kMaxFiles = 4096;
  static constexpr int kMaxDepth = 4;  // of directories in an adapter's

  // Makes STATE/adapters where there is none.
  static StatusOr<AdapterVault> Open(const std::string& state_directory);
  AdapterVault(AdapterVault&& other) noexcept
      : root_(std::move(other.root_)), next_(other.next_.load()) {}

  const std::string& root() const { return root_; }
  // Copies the files that an adapter may be made of (adapter_files.h) and returns the
  // folder's name. One that is refused by its size or header is refused here, before it is copied.
  StatusOr<std::string> Take(const Directory& from, int64_t max_bytes);
  bool Holds(const std::string& folder) const;
  void Drop(const std::string& folder);
  // Removes what no record names: loads that did not come to their end. Returns how many.
  int64_t DropAllBut(const std::set<std::string>& folders);

 private:
  explicit AdapterVault(std::string root) : root_(std::move(root)) {}
  std::string root_;
  std::atomic<int64_t> next_{1};
};

}  // namespace polyad
