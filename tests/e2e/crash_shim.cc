// Preloaded into the program under test: ends it at a chosen call that changes the files beneath
// one directory, as a kill or a failing power supply would.
//   POLYAD_CRASH_DIR    the directory
//   POLYAD_CRASH_AT     the number of the call, from 1
//   POLYAD_CRASH_MODE   before: the call is not made; torn: half of a write is; after: it is whole;
//                       lost: it is not made, and what was not synced is undone: bytes written
//                       since a file's last fsync, and files, directories and renames since their
//                       directory's. (Removed files stay removed.)

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

template <typename Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

std::atomic<long> num_calls{0};

const char* Setting(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool IsBeneath(const char* path) {
  const char* directory = Setting("POLYAD_CRASH_DIR");
  const size_t length = std::strlen(directory);
  return length > 0 && std::strncmp(path, directory, length) == 0;
}

std::string PathOf(int descriptor) {
  char link[64];
  char path[4096];
  std::snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof(path));
  return length < 0 ? "" : std::string(path, static_cast<size_t>(length));
}

bool IsBeneath(int descriptor) { return IsBeneath(PathOf(descriptor).c_str()); }

bool IsItsTurn() { return num_calls.fetch_add(1) + 1 == std::atol(Setting("POLYAD_CRASH_AT")); }

bool Is(const char* mode) { return std::strcmp(Setting("POLYAD_CRASH_MODE"), mode) == 0; }

// What a power cut may undo.
class Unsynced {
 public:
  static Unsynced& All() {
    static Unsynced& all = *new Unsynced;
    return all;
  }
  void Written(int descriptor) {
    struct stat info = {};
    if (fstat(descriptor, &info) != 0) return;
    std::lock_guard lock(mutex_);
    synced_size_.emplace(PathOf(descriptor), info.st_size);  // unless it was written before
  }
  void Synced(int descriptor) {
    struct stat info = {};
    if (fstat(descriptor, &info) != 0) return;
    const std::string path = PathOf(descriptor);
    std::lock_guard lock(mutex_);
    if (!S_ISDIR(info.st_mode)) {
      synced_size_[path] = info.st_size;
      return;
    }
    std::erase_if(names_, [&](const Name& name) { return ParentOf(name.path) == path; });
  }
  // `before` is what had the name, to be put back; empty: nothing.
  void Named(const std::string& path, const std::string& before) {
    std::lock_guard lock(mutex_);
    names_.push_back({path, before});
  }
  void Renamed(const std::string& from, const std::string& to) {
    std::lock_guard lock(mutex_);
    const auto found = synced_size_.find(from);
    if (found == synced_size_.end()) return;
    synced_size_[to] = found->second;
    synced_size_.erase(found);
  }
  void Undo() {
    std::lock_guard lock(mutex_);
    for (const auto& [path, size] : synced_size_) static_cast<void>(truncate(path.c_str(), size));
    for (auto name = names_.rbegin(); name != names_.rend(); ++name) {
      if (name->before.empty()) {
        std::error_code ignored;
        std::filesystem::remove_all(name->path, ignored);
      } else {
        static_cast<void>(Real<int(const char*, const char*)>("rename")(name->before.c_str(),
                                                                        name->path.c_str()));
      }
    }
  }

 private:
  struct Name {
    std::string path;
    std::string before;
  };
  static std::string ParentOf(const std::string& path) { return path.substr(0, path.rfind('/')); }

  std::mutex mutex_;
  std::map<std::string, off_t> synced_size_;
  std::vector<Name> names_;
};

[[noreturn]] void Die() {
  if (Is("lost")) Unsynced::All().Undo();
  kill(getpid(), SIGKILL);
  while (true) pause();
}

// Makes the call, or dies before or after it.
template <typename Call>
auto Pass(bool concerned, Call call) {
  const bool last = concerned && IsItsTurn();
  if (last && !Is("after")) Die();
  const auto result = call();
  if (last) Die();
  return result;
}

// A link that keeps what `path` leads to, beside the directory; empty where it leads nowhere.
std::string Keep(const char* path) {
  static std::atomic<int> number{0};
  const std::string kept =
      std::string(Setting("POLYAD_CRASH_DIR")) + ".kept." + std::to_string(number.fetch_add(1));
  return link(path, kept.c_str()) == 0 ? kept : "";
}

}  // namespace

extern "C" {

ssize_t write(int descriptor, const void* bytes, size_t count) {
  static auto* const real = Real<ssize_t(int, const void*, size_t)>("write");
  if (!IsBeneath(descriptor)) return real(descriptor, bytes, count);
  Unsynced::All().Written(descriptor);
  const bool last = IsItsTurn();
  if (last && Is("torn")) static_cast<void>(real(descriptor, bytes, count / 2));
  if (last && !Is("after")) Die();
  const ssize_t written = real(descriptor, bytes, count);
  if (last) Die();
  return written;
}

int fsync(int descriptor) {
  static auto* const real = Real<int(int)>("fsync");
  const bool concerned = IsBeneath(descriptor);
  return Pass(concerned, [&] {
    const int result = real(descriptor);
    if (result == 0) Unsynced::All().Synced(descriptor);
    return result;
  });
}

int ftruncate(int descriptor, off_t size) noexcept {
  static auto* const real = Real<int(int, off_t)>("ftruncate");
  return Pass(IsBeneath(descriptor), [&] { return real(descriptor, size); });
}

int rename(const char* from, const char* to) noexcept {
  static auto* const real = Real<int(const char*, const char*)>("rename");
  const bool concerned = IsBeneath(to);
  return Pass(concerned, [&] {
    if (concerned) {
      Unsynced::All().Named(to, Keep(to));
      Unsynced::All().Renamed(from, to);
    }
    return real(from, to);
  });
}

int mkdir(const char* path, mode_t mode) noexcept {
  static auto* const real = Real<int(const char*, mode_t)>("mkdir");
  const bool concerned = IsBeneath(path);
  return Pass(concerned, [&] {
    if (concerned) Unsynced::All().Named(path, "");
    return real(path, mode);
  });
}

// Creating a file is no call of its own to die at: the first write to it is.
int open(const char* path, int flags, ...) {
  static auto* const real = Real<int(const char*, int, ...)>("open");
  std::va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  const bool creates = (flags & O_CREAT) != 0 && IsBeneath(path) && access(path, F_OK) != 0;
  const int descriptor = real(path, flags, mode);
  if (creates && descriptor >= 0) Unsynced::All().Named(path, "");
  return descriptor;
}

int unlink(const char* path) noexcept {
  static auto* const real = Real<int(const char*)>("unlink");
  return Pass(IsBeneath(path), [&] { return real(path); });
}

int unlinkat(int directory, const char* path, int flags) noexcept {
  static auto* const real = Real<int(int, const char*, int)>("unlinkat");
  const bool concerned = path[0] == '/' ? IsBeneath(path) : IsBeneath(directory);
  return Pass(concerned, [&] { return real(directory, path, flags); });
}

}  // extern "C"
