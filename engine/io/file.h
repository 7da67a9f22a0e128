#pragma once

// Files of the outside world, read into memory we own: never mapped, because whoever can truncate a
// mapped file can kill the process. Only regular files open (no directory, device or FIFO), sizes
// come from the open descriptor, and every read states how much it may take. A directory of a
// tenant is walked without following any link (Directory), so that a path under a root stays under
// it. Messages name files by their last path component only. All types are thread-safe for
// concurrent const use. NOT_FOUND: absent. INVALID_ARGUMENT: not a regular file, or a path that
// leaves its root. RESOURCE_EXHAUSTED: larger than the limit. DATA_LOSS: shorter than it said.
// FAILED_PRECONDITION: the system refused (permissions).

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"

namespace polyad {

// A buffer aligned to 64 bytes, so that tensors in it suit any kernel; its owner fills it. A part
// keeps the whole alive and shares its bytes: nobody writes to a buffer that has parts.
class OwnedBytes {
 public:
  OwnedBytes() = default;
  static StatusOr<OwnedBytes> Allocate(int64_t size);
  // Bytes [offset, offset + size) of this buffer, aligned as the offset is.
  OwnedBytes Part(int64_t offset, int64_t size) const;

  uint8_t* data() { return data_.get(); }
  const uint8_t* data() const { return data_.get(); }
  int64_t size() const { return size_; }
  std::span<const uint8_t> span() const { return {data_.get(), static_cast<size_t>(size_)}; }

 private:
  std::shared_ptr<uint8_t> data_;
  int64_t size_ = 0;
};

// Positioned reads of one open file, or of bytes already in memory (adapters read whole, tests,
// fuzzers).
class RandomAccessFile {
 public:
  // Follows symbolic links: for paths the operator chose.
  static StatusOr<RandomAccessFile> Open(const std::string& path);
  static RandomAccessFile FromBytes(std::string bytes, std::string name);
  static RandomAccessFile FromBytes(OwnedBytes bytes, std::string name);
  RandomAccessFile(RandomAccessFile&& other) noexcept;
  RandomAccessFile& operator=(RandomAccessFile&& other) noexcept;
  ~RandomAccessFile();

  const std::string& name() const { return name_; }  // last path component, for messages
  int64_t size() const { return size_; }             // when it was opened
  // Fills exactly [destination, destination + bytes) or fails.
  Status ReadAt(int64_t offset, void* destination, int64_t bytes) const;
  // The same in a buffer: a part of the file's own where it is in memory and the place is aligned
  // for any number, else a copy.
  StatusOr<OwnedBytes> ReadBytes(int64_t offset, int64_t bytes) const;
  // The whole file, if it is at most max_bytes.
  StatusOr<std::string> ReadAll(int64_t max_bytes) const;

 private:
  friend class Directory;
  RandomAccessFile() = default;
  static StatusOr<RandomAccessFile> FromDescriptor(int descriptor, std::string name);

  int descriptor_ = -1;  // -1: bytes_ holds the content
  OwnedBytes bytes_;
  std::string name_;
  int64_t size_ = 0;
};

// A directory held open by descriptor, for trees that somebody else may change while we read.
class Directory {
 public:
  // `root` is the operator's and may contain links. `path` is relative to it, or absolute with
  // `root` as its prefix; it must not be empty, and neither "..", nor ".", nor a NUL, nor any link
  // on the way is accepted.
  static StatusOr<Directory> OpenBeneath(const std::string& root, const std::string& path);
  Directory(Directory&& other) noexcept;
  Directory& operator=(Directory&& other) noexcept;
  ~Directory();

  // `file_name` is one plain component; a link in its place is refused.
  StatusOr<RandomAccessFile> OpenFile(const std::string& file_name) const;
  // Likewise of a directory in this one.
  StatusOr<Directory> OpenDirectory(const std::string& name) const;
  bool Contains(const std::string& file_name) const;
  // Names of what is in it but "." and "..", in order. RESOURCE_EXHAUSTED past `max_entries`.
  StatusOr<std::vector<std::string>> List(int64_t max_entries) const;

 private:
  explicit Directory(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

// Checks `path` as Directory::OpenBeneath does and returns it joined to `root`. The answer is about
// this moment: open tenants' files through Directory.
StatusOr<std::string> ResolveBeneath(const std::string& root, const std::string& path);

StatusOr<std::string> ReadFileLimited(const std::string& path, int64_t max_bytes);

bool FileExists(const std::string& path);
bool IsDirectory(const std::string& path);
bool IsPlainFileName(std::string_view name);  // one component: no '/', no NUL, not "", "." or ".."

}  // namespace polyad
