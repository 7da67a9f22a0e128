#pragma once

// Whether a file is still the one that was read: what stat says of it, links followed. Any thread.

#include <sys/stat.h>

#include <cstdint>
#include <string>

namespace polyad {

struct FileStamp {
  int64_t inode = -1;  // -1: no such file
  int64_t bytes = 0;
  int64_t changed_ns = 0;
  bool operator==(const FileStamp&) const = default;
};

inline FileStamp StampOf(const std::string& path) {
  struct stat info {};
  if (path.empty() || ::stat(path.c_str(), &info) != 0) return {};
  return {static_cast<int64_t>(info.st_ino), static_cast<int64_t>(info.st_size),
          static_cast<int64_t>(info.st_ctim.tv_sec) * 1'000'000'000 + info.st_ctim.tv_nsec};
}

}  // namespace polyad
