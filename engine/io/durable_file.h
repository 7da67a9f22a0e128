#pragma once

// Files whose content outlasts a power cut: nothing returns OK before the bytes, and the name that
// leads to them, are on disk. A file is open in one process at a time. Not thread-safe. Errors:
// RESOURCE_EXHAUSTED where the disk is full; UNAVAILABLE where another process has the file;
// INTERNAL with what the system said.

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/status.h"

namespace polyad {

class RandomAccessFile;  // file.h

// A file that grows at its end.
class AppendFile {
 public:
  // Made where there is none. The lock ends with this object or its process.
  static StatusOr<AppendFile> Open(const std::string& path);
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&& other) noexcept;
  ~AppendFile();

  int64_t size() const { return size_; }
  bool torn() const { return torn_; }  // its end could not be cut back: it takes no more
  // All of it or, on an error, nothing: the file is cut back.
  Status Append(std::string_view bytes);
  Status Cut(int64_t size);

 private:
  explicit AppendFile(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
  int64_t size_ = 0;
  bool torn_ = false;  // it could not be cut back: nothing may follow
};

// Writes a new file. The directory is not told: SyncDirectory, once for all its files.
Status WriteNewFile(const std::string& path, std::string_view bytes);
// The same with another file's bytes, a mebibyte of memory at a time; a long run of zeros stays a
// hole in the new file. It gives way (give_way.h) between two pieces.
Status CopyToNewFile(const RandomAccessFile& from, const std::string& path);
// The file has the new content or the old, whenever the power fails.
Status ReplaceFile(const std::string& path, std::string_view bytes);
// Makes what is missing of a path of directories, each entered in its parent for good.
Status CreateDirectories(const std::string& path);
// Names made or removed in it are on disk.
Status SyncDirectory(const std::string& path);

}  // namespace polyad
