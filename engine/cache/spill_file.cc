#include "engine/cache/spill_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "engine/base/check.h"

namespace polyad {
namespace {

Status Failed(const char* what, const std::string& where) {
  return Unavailable("K/V spill file in '%s': cannot %s: %s", where, what, std::strerror(errno));
}

}  // namespace

StatusOr<std::unique_ptr<SpillFile>> SpillFile::Create(const std::string& directory,
                                                       int64_t slot_bytes) {
  POLYAD_CHECK(slot_bytes > 0, "a slot holds something");
  int descriptor = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {  // an old file system
    std::string path = directory + "/polyad-kv-XXXXXX";
    descriptor = ::mkostemp(path.data(), O_CLOEXEC);
    if (descriptor >= 0) ::unlink(path.c_str());
  }
  if (descriptor < 0) return Failed("create it", directory);
  return std::unique_ptr<SpillFile>(new SpillFile(descriptor, slot_bytes));
}

SpillFile::~SpillFile() { ::close(descriptor_); }

Status SpillFile::Write(int64_t slot, std::span<const char> bytes) {
  POLYAD_CHECK(static_cast<int64_t>(bytes.size()) == slot_bytes_, "slots are of one size");
  size_t done = 0;
  while (done < bytes.size()) {
    const auto at = static_cast<off_t>(slot * slot_bytes_ + static_cast<int64_t>(done));
    const ssize_t written = ::pwrite(descriptor_, bytes.data() + done, bytes.size() - done, at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return Unavailable("K/V spill file: cannot write: %s", std::strerror(errno));
    done += static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

Status SpillFile::Read(int64_t slot, std::span<char> bytes) const {
  POLYAD_CHECK(static_cast<int64_t>(bytes.size()) == slot_bytes_, "slots are of one size");
  size_t done = 0;
  while (done < bytes.size()) {
    const auto at = static_cast<off_t>(slot * slot_bytes_ + static_cast<int64_t>(done));
    const ssize_t got = ::pread(descriptor_, bytes.data() + done, bytes.size() - done, at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Unavailable("K/V spill file: cannot read: %s", std::strerror(errno));
    if (got == 0) return Unavailable("K/V spill file: it was cut short");
    done += static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

}  // namespace polyad
