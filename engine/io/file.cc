#include "engine/io/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/io/checked_math.h"
#include "engine/io/quote.h"
#include "kernels/api/give_way.h"
#include "kernels/api/huge_pages.h"
#include "kernels/api/round_up.h"

namespace polyad {

namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kNumberAlignment = 8;  // of the widest number that a tensor holds
// From here on a buffer is of huge pages: one fault for 2 MiB in place of 512, which were a sixth
// of the time an adapter of 10 MB took to read.
constexpr int64_t kHugeBytes = 2 * kHugePage;
constexpr int64_t kMaxReadChunk = int64_t{1} << 30;  // read(2) stops near 2 GiB
constexpr int64_t kPieceBytes = int64_t{1} << 19;    // 49 us from the system's cache
constexpr size_t kMaxPath = 4096;
constexpr size_t kMaxComponents = 64;

// Huge pages come in eighths of a power of two, so that a file finds what one of nearly its size
// gave back. Pages that it does not touch cost nothing.
int64_t BytesOfItsClass(int64_t bytes) {
  const auto eighth = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes))) / 8;
  return RoundUp(bytes, std::max(kHugePage, eighth));
}

std::string LastComponent(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return path;
  const size_t slash = path.find_last_of('/', end);
  const size_t begin = slash == std::string::npos ? 0 : slash + 1;
  return path.substr(begin, end + 1 - begin);
}

Status OpenFailure(const std::string& name, int error) {
  const std::string quoted = Quote(name);
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return NotFound("file %s does not exist", quoted);
    case ELOOP:
      return InvalidArgument("file %s: symbolic links are not followed here", quoted);
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return ResourceExhausted("file %s: %s", quoted, std::strerror(error));
    default:
      return FailedPrecondition("file %s cannot be opened: %s", quoted, std::strerror(error));
  }
}

int OpenRetrying(int directory, const char* path, int flags) {
  int descriptor = -1;
  do {
    descriptor = openat(directory, path, flags);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

// "a/b" -> {"a", "b"}, refusing what could leave the root or name something odd.
StatusOr<std::vector<std::string>> SplitBeneath(const std::string& root, const std::string& path) {
  if (path.size() > kMaxPath) {
    return InvalidArgument("path: expected at most %d bytes, got %d", kMaxPath, path.size());
  }
  if (path.find('\0') != std::string::npos) return InvalidArgument("path holds a NUL byte");
  std::string relative = path;
  if (!path.empty() && path[0] == '/') {
    std::string prefix = root;
    while (!prefix.empty() && prefix.back() == '/') prefix.pop_back();
    prefix += '/';
    if (path.compare(0, prefix.size(), prefix) != 0) {
      return InvalidArgument("path %s is outside the configured root", Quote(LastComponent(path)));
    }
    relative = path.substr(prefix.size());
  }
  while (!relative.empty() && relative.back() == '/') relative.pop_back();
  std::vector<std::string> components;
  for (size_t begin = 0; begin <= relative.size();) {
    const size_t end = std::min(relative.find('/', begin), relative.size());
    components.push_back(relative.substr(begin, end - begin));
    if (!IsPlainFileName(components.back())) {
      return InvalidArgument("path %s: '', '.' and '..' are not accepted as components",
                             Quote(LastComponent(path)));
    }
    if (components.size() > kMaxComponents) {
      return InvalidArgument("path: expected at most %d components", kMaxComponents);
    }
    begin = end + 1;
  }
  return components;
}

}  // namespace

StatusOr<OwnedBytes> OwnedBytes::Allocate(int64_t size) {
  if (size < 0 || size > std::numeric_limits<int64_t>::max() - kHugePage) {
    return InvalidArgument("buffer of %d bytes is not possible", size);
  }
  OwnedBytes bytes;
  const int64_t padded = std::max<int64_t>(RoundUp(size, kAlignment), kAlignment);
  if (size >= kHugeBytes) {
    POLYAD_ASSIGN_OR_RETURN(const HugePages pages, HugePages::Allocate(BytesOfItsClass(padded)));
    bytes.data_ =
        std::shared_ptr<uint8_t>(pages.memory, reinterpret_cast<uint8_t*>(pages.memory.get()));
  } else {
    void* memory = std::aligned_alloc(kAlignment, static_cast<size_t>(padded));
    if (memory == nullptr) return ResourceExhausted("no memory for a buffer of %d bytes", size);
    bytes.data_.reset(static_cast<uint8_t*>(memory), [](uint8_t* data) { std::free(data); });
  }
  std::memset(bytes.data_.get() + size, 0, static_cast<size_t>(padded - size));
  bytes.size_ = size;
  return bytes;
}

OwnedBytes OwnedBytes::Part(int64_t offset, int64_t size) const {
  POLYAD_CHECK(offset >= 0 && size >= 0 && offset <= size_ - size, "a part of a buffer");
  OwnedBytes part;
  part.data_ = std::shared_ptr<uint8_t>(data_, data_.get() + offset);
  part.size_ = size;
  return part;
}

StatusOr<RandomAccessFile> RandomAccessFile::Open(const std::string& path) {
  if (path.find('\0') != std::string::npos) return InvalidArgument("path holds a NUL byte");
  // Non-blocking, so that opening a FIFO returns and can be refused; regular files ignore it.
  const int descriptor = OpenRetrying(AT_FDCWD, path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return OpenFailure(LastComponent(path), errno);
  return FromDescriptor(descriptor, LastComponent(path));
}

RandomAccessFile RandomAccessFile::FromBytes(std::string bytes, std::string name) {
  StatusOr<OwnedBytes> copy = OwnedBytes::Allocate(static_cast<int64_t>(bytes.size()));
  POLYAD_CHECK(copy.ok(), "memory for a second copy");
  std::copy(bytes.begin(), bytes.end(), copy->data());
  return FromBytes(*std::move(copy), std::move(name));
}

RandomAccessFile RandomAccessFile::FromBytes(OwnedBytes bytes, std::string name) {
  RandomAccessFile file;
  file.bytes_ = std::move(bytes);
  file.name_ = std::move(name);
  file.size_ = file.bytes_.size();
  return file;
}

StatusOr<RandomAccessFile> RandomAccessFile::FromDescriptor(int descriptor, std::string name) {
  RandomAccessFile file;
  file.descriptor_ = descriptor;
  file.name_ = std::move(name);
  struct stat info = {};
  if (fstat(descriptor, &info) != 0) return OpenFailure(file.name_, errno);
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument("%s: expected a regular file", Quote(file.name_));
  }
  file.size_ = static_cast<int64_t>(info.st_size);
  return file;
}

RandomAccessFile::RandomAccessFile(RandomAccessFile&& other) noexcept { *this = std::move(other); }

RandomAccessFile& RandomAccessFile::operator=(RandomAccessFile&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(bytes_, other.bytes_);
  std::swap(name_, other.name_);
  std::swap(size_, other.size_);
  return *this;
}

RandomAccessFile::~RandomAccessFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

Status RandomAccessFile::ReadAt(int64_t offset, void* destination, int64_t bytes) const {
  const std::optional<int64_t> end = CheckedAdd(offset, bytes);
  if (offset < 0 || bytes < 0 || !end.has_value() || *end > size_) {
    return DataLoss("%s: wanted %d bytes at offset %d, the file has %d", Quote(name_), bytes,
                    offset, size_);
  }
  if (bytes == 0) return absl::OkStatus();
  if (descriptor_ < 0) {
    std::memcpy(destination, bytes_.data() + offset, static_cast<size_t>(bytes));
    return absl::OkStatus();
  }
  auto* out = static_cast<char*>(destination);
  while (bytes > 0) {
    const auto wanted = static_cast<size_t>(std::min(bytes, kMaxReadChunk));
    const ssize_t got = pread(descriptor_, out, wanted, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return DataLoss("%s: reading failed: %s", Quote(name_), std::strerror(errno));
    if (got == 0) return DataLoss("%s: became shorter while it was read", Quote(name_));
    out += got;
    offset += got;
    bytes -= got;
  }
  return absl::OkStatus();
}

StatusOr<OwnedBytes> RandomAccessFile::ReadBytes(int64_t offset, int64_t bytes) const {
  const std::optional<int64_t> end = CheckedAdd(offset, bytes);
  const bool inside = offset >= 0 && bytes >= 0 && end.has_value() && *end <= size_;
  if (descriptor_ < 0 && inside && offset % kNumberAlignment == 0) {
    return bytes_.Part(offset, bytes);
  }
  POLYAD_ASSIGN_OR_RETURN(OwnedBytes copy, OwnedBytes::Allocate(bytes));
  if (!inside || bytes == 0) {
    POLYAD_RETURN_IF_ERROR(ReadAt(offset, copy.data(), bytes));
  }
  for (int64_t at = 0; at < bytes; at += kPieceBytes) {
    POLYAD_RETURN_IF_ERROR(
        ReadAt(offset + at, copy.data() + at, std::min(kPieceBytes, bytes - at)));
    GiveWay();  // a loader may read a matrix of the base
  }
  return copy;
}

StatusOr<std::string> RandomAccessFile::ReadAll(int64_t max_bytes) const {
  if (size_ > max_bytes) {
    return ResourceExhausted("%s: expected at most %d bytes, got %d", Quote(name_), max_bytes,
                             size_);
  }
  std::string content(static_cast<size_t>(size_), '\0');
  POLYAD_RETURN_IF_ERROR(ReadAt(0, content.data(), size_));
  return content;
}

StatusOr<Directory> Directory::OpenBeneath(const std::string& root, const std::string& path) {
  POLYAD_ASSIGN_OR_RETURN(const std::vector<std::string> components, SplitBeneath(root, path));
  Directory current(OpenRetrying(AT_FDCWD, root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (current.descriptor_ < 0) return OpenFailure(LastComponent(root), errno);
  for (const std::string& component : components) {
    POLYAD_ASSIGN_OR_RETURN(Directory next, current.OpenDirectory(component));
    current = std::move(next);
  }
  return current;
}

StatusOr<Directory> Directory::OpenDirectory(const std::string& name) const {
  if (!IsPlainFileName(name)) {
    return InvalidArgument("directory name %s: expected one plain component", Quote(name));
  }
  const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;
  Directory next(OpenRetrying(descriptor_, name.c_str(), flags));
  if (next.descriptor_ >= 0) return next;
  // O_DIRECTORY with O_NOFOLLOW reports a link as ENOTDIR.
  const int error = errno;
  struct stat info = {};
  const bool is_link =
      fstatat(descriptor_, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(info.st_mode);
  return OpenFailure(name, is_link ? ELOOP : error);
}

Directory::Directory(Directory&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

Directory& Directory::operator=(Directory&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

Directory::~Directory() {
  if (descriptor_ >= 0) close(descriptor_);
}

StatusOr<RandomAccessFile> Directory::OpenFile(const std::string& file_name) const {
  if (!IsPlainFileName(file_name)) {
    return InvalidArgument("file name %s: expected one plain component", Quote(file_name));
  }
  const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW;
  const int descriptor = OpenRetrying(descriptor_, file_name.c_str(), flags);
  if (descriptor < 0) return OpenFailure(file_name, errno);
  return RandomAccessFile::FromDescriptor(descriptor, file_name);
}

bool Directory::Contains(const std::string& file_name) const {
  struct stat info = {};
  return IsPlainFileName(file_name) &&
         fstatat(descriptor_, file_name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
}

StatusOr<std::vector<std::string>> Directory::List(int64_t max_entries) const {
  const int own = OpenRetrying(descriptor_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* stream = own < 0 ? nullptr : fdopendir(own);
  if (stream == nullptr) {
    const int error = errno;
    if (own >= 0) close(own);
    return OpenFailure(".", error);
  }
  std::vector<std::string> names;
  errno = 0;
  const dirent* entry = nullptr;
  while ((entry = readdir(stream)) != nullptr) {
    if (IsPlainFileName(entry->d_name)) names.emplace_back(entry->d_name);
    if (static_cast<int64_t>(names.size()) > max_entries) break;
  }
  const int error = errno;
  closedir(stream);
  if (static_cast<int64_t>(names.size()) > max_entries) {
    return ResourceExhausted("directory: expected at most %d entries, got more", max_entries);
  }
  if (entry == nullptr && error != 0) return OpenFailure(".", error);
  std::sort(names.begin(), names.end());
  return names;
}

StatusOr<std::string> ResolveBeneath(const std::string& root, const std::string& path) {
  POLYAD_RETURN_IF_ERROR(Directory::OpenBeneath(root, path).status());
  if (path[0] == '/') return path;
  return root + "/" + path;
}

StatusOr<std::string> ReadFileLimited(const std::string& path, int64_t max_bytes) {
  POLYAD_ASSIGN_OR_RETURN(const RandomAccessFile file, RandomAccessFile::Open(path));
  return file.ReadAll(max_bytes);
}

bool FileExists(const std::string& path) {
  struct stat info = {};
  return stat(path.c_str(), &info) == 0;
}

bool IsDirectory(const std::string& path) {
  struct stat info = {};
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

bool IsPlainFileName(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

}  // namespace polyad
