#include "engine/io/durable_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "engine/io/file.h"
#include "engine/io/quote.h"
#include "kernels/api/give_way.h"

namespace polyad {
namespace {

constexpr mode_t kOwnerOnly = 0600;
constexpr int64_t kPieceBytes = int64_t{1} << 20;  // copied at a time

Status Failure(const std::string& what, int error) {
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return ResourceExhausted("%s: the disk is full", what);
  }
  return Internal("%s: %s", what, std::strerror(error));
}

// Closes what it holds.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (value_ >= 0) close(value_);
  }
  int get() const { return value_; }
  int Release() { return std::exchange(value_, -1); }

 private:
  int value_;
};

Status WriteAll(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Failure("write", errno);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

bool IsAllZeros(const uint8_t* bytes, int64_t size) {
  return bytes[0] == 0 && std::memcmp(bytes, bytes + 1, static_cast<size_t>(size - 1)) == 0;
}

StatusOr<int> CreateNew(const std::string& path) {
  const int file =
      open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, kOwnerOnly);
  if (file < 0) return Failure(Quote(path), errno);
  return file;
}

Status Sync(int descriptor) {
  while (fsync(descriptor) != 0) {
    if (errno != EINTR) return Failure("sync", errno);
  }
  return absl::OkStatus();
}

std::string ParentOf(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

}  // namespace

StatusOr<AppendFile> AppendFile::Open(const std::string& path) {
  Descriptor file(open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, kOwnerOnly));
  if (file.get() < 0) return Failure(Quote(path), errno);
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return Unavailable("%s: another process has it", Quote(path));
    return Failure(Quote(path), errno);
  }
  struct stat info = {};
  if (fstat(file.get(), &info) != 0) return Failure(Quote(path), errno);
  POLYAD_RETURN_IF_ERROR(SyncDirectory(ParentOf(path)));
  AppendFile opened(file.Release());
  opened.size_ = info.st_size;
  return opened;
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_), torn_(other.torn_) {}

AppendFile& AppendFile::operator=(AppendFile&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(size_, other.size_);
  std::swap(torn_, other.torn_);
  return *this;
}

AppendFile::~AppendFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

Status AppendFile::Append(std::string_view bytes) {
  if (torn_) return Internal("the file's end could not be mended after an error");
  Status status = WriteAll(descriptor_, bytes);
  if (status.ok()) status = Sync(descriptor_);
  if (!status.ok()) {
    torn_ = !Cut(size_).ok();
    return status;
  }
  size_ += static_cast<int64_t>(bytes.size());
  return absl::OkStatus();
}

Status AppendFile::Cut(int64_t size) {
  if (ftruncate(descriptor_, size) != 0) return Failure("truncate", errno);
  POLYAD_RETURN_IF_ERROR(Sync(descriptor_));
  size_ = size;
  return absl::OkStatus();
}

Status WriteNewFile(const std::string& path, std::string_view bytes) {
  POLYAD_ASSIGN_OR_RETURN(const int created, CreateNew(path));
  const Descriptor file(created);
  POLYAD_RETURN_IF_ERROR(WriteAll(file.get(), bytes));
  return Sync(file.get());
}

Status CopyToNewFile(const RandomAccessFile& from, const std::string& path) {
  POLYAD_ASSIGN_OR_RETURN(const int created, CreateNew(path));
  const Descriptor file(created);
  POLYAD_ASSIGN_OR_RETURN(OwnedBytes piece,
                          OwnedBytes::Allocate(std::min(kPieceBytes, from.size())));
  for (int64_t at = 0; at < from.size(); at += kPieceBytes) {
    const int64_t size = std::min(kPieceBytes, from.size() - at);
    POLYAD_RETURN_IF_ERROR(from.ReadAt(at, piece.data(), size));
    if (IsAllZeros(piece.data(), size)) {
      if (lseek(file.get(), size, SEEK_CUR) < 0) return Failure("seek", errno);
    } else {
      const char* bytes = reinterpret_cast<const char*>(piece.data());
      POLYAD_RETURN_IF_ERROR(WriteAll(file.get(), {bytes, static_cast<size_t>(size)}));
    }
    GiveWay();
  }
  if (ftruncate(file.get(), from.size()) != 0) return Failure("truncate", errno);
  return Sync(file.get());
}

Status ReplaceFile(const std::string& path, std::string_view bytes) {
  const std::string fresh = path + ".new";
  unlink(fresh.c_str());  // what a crash left
  POLYAD_RETURN_IF_ERROR(WriteNewFile(fresh, bytes));
  if (rename(fresh.c_str(), path.c_str()) != 0) return Failure(Quote(path), errno);
  return SyncDirectory(ParentOf(path));
}

Status CreateDirectories(const std::string& path) {
  std::error_code error;
  const std::filesystem::path whole = std::filesystem::absolute(path, error).lexically_normal();
  std::filesystem::path made;
  for (const std::filesystem::path& part : whole) {
    const std::filesystem::path parent = made;
    made /= part;
    if (!std::filesystem::create_directory(made, error)) {
      if (error) return Internal("%s: %s", Quote(path), error.message());
      continue;  // it was there
    }
    POLYAD_RETURN_IF_ERROR(SyncDirectory(parent.string()));
  }
  return absl::OkStatus();
}

Status SyncDirectory(const std::string& path) {
  const Descriptor directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0) return Failure(Quote(path), errno);
  return Sync(directory.get());
}

}  // namespace polyad
