#include "server/adapter_vault.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <system_error>
#include <vector>

#include "engine/adapters/adapter_files.h"
#include "engine/io/durable_file.h"
#include "engine/io/quote.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;

Status MakeDirectory(const std::string& path) {
  std::error_code error;
  fs::create_directory(path, error);
  if (error) return Internal("%s: %s", Quote(path), error.message());
  return absl::OkStatus();
}

// Copies one directory and those in it.
class Copier {
 public:
  explicit Copier(int64_t max_bytes) : max_bytes_(max_bytes) {}

  Status Copy(const Directory& from, const std::string& to, int depth) {
    POLYAD_RETURN_IF_ERROR(MakeDirectory(to));
    POLYAD_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                            from.List(AdapterVault::kMaxFiles));
    for (const std::string& name : names) {
      if (++num_entries_ > AdapterVault::kMaxFiles) {
        return ResourceExhausted("adapter: expected at most %d files, got more",
                                 AdapterVault::kMaxFiles);
      }
      const std::string target = to + "/" + name;
      if (IsAdapterFile(name)) {
        POLYAD_RETURN_IF_ERROR(CopyFile(from, name, target));
      } else if (StatusOr<Directory> inner = from.OpenDirectory(name); inner.ok()) {
        if (depth == AdapterVault::kMaxDepth) {
          return ResourceExhausted("adapter: expected directories at most %d deep, got more",
                                   AdapterVault::kMaxDepth);
        }
        POLYAD_RETURN_IF_ERROR(Copy(*inner, target, depth + 1));
      }
    }
    return SyncDirectory(to);
  }

 private:
  Status CopyFile(const Directory& from, const std::string& name, const std::string& target) {
    POLYAD_ASSIGN_OR_RETURN(const RandomAccessFile file, from.OpenFile(name));
    if (file.size() > max_bytes_ - num_bytes_) {
      return ResourceExhausted("adapter: expected files of at most %d bytes together, got more",
                               max_bytes_);
    }
    num_bytes_ += file.size();
    POLYAD_RETURN_IF_ERROR(CheckAdapterFile(from, name));
    return CopyToNewFile(file, target);
  }

  const int64_t max_bytes_;
  int64_t num_bytes_ = 0;
  int64_t num_entries_ = 0;
};

int64_t NumberOf(const std::string& folder) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(folder.data(), folder.data() + folder.size(), number);
  return error == std::errc() && end == folder.data() + folder.size() ? number : 0;
}

}  // namespace

StatusOr<AdapterVault> AdapterVault::Open(const std::string& state_directory) {
  AdapterVault vault(state_directory + "/adapters");
  POLYAD_RETURN_IF_ERROR(MakeDirectory(vault.root_));
  POLYAD_RETURN_IF_ERROR(SyncDirectory(state_directory));
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(vault.root_, error)) {
    const int64_t number = NumberOf(entry.path().filename().string());
    vault.next_.store(std::max(vault.next_.load(), number + 1));
  }
  if (error) return Internal("%s: %s", Quote(vault.root_), error.message());
  return vault;
}

StatusOr<std::string> AdapterVault::Take(const Directory& from, int64_t max_bytes) {
  const std::string folder = std::to_string(next_.fetch_add(1));
  Status copied = Copier(max_bytes).Copy(from, root_ + "/" + folder, 1);
  if (copied.ok()) copied = SyncDirectory(root_);
  if (copied.ok()) return folder;
  Drop(folder);
  return copied;
}

bool AdapterVault::Holds(const std::string& folder) const {
  return IsPlainFileName(folder) && IsDirectory(root_ + "/" + folder);
}

void AdapterVault::Drop(const std::string& folder) {
  std::error_code ignored;  // what stays is removed by the next start
  if (IsPlainFileName(folder)) fs::remove_all(root_ + "/" + folder, ignored);
}

int64_t AdapterVault::DropAllBut(const std::set<std::string>& folders) {
  std::error_code error;
  std::vector<std::string> unnamed;
  for (const fs::directory_entry& entry : fs::directory_iterator(root_, error)) {
    const std::string name = entry.path().filename().string();
    if (folders.count(name) == 0) unnamed.push_back(name);
  }
  for (const std::string& name : unnamed) Drop(name);
  return static_cast<int64_t>(unnamed.size());
}

}  // namespace polyad
