#include "engine/io/part_directory.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "engine/io/quote.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;

// "out/" names the directory that "out" does.
std::string WithoutSlash(std::string name) {
  while (name.size() > 1 && name.back() == '/') name.pop_back();
  return name;
}

}  // namespace

PartDirectory::PartDirectory(std::string name)
    : name_(WithoutSlash(std::move(name))), path_(name_ + ".part") {}

PartDirectory::~PartDirectory() {
  std::error_code error;
  if (made_) fs::remove_all(path_, error);
}

Status PartDirectory::CheckFree() const {
  std::error_code error;
  if (name_.empty()) return InvalidArgument("out: expected the name of a new directory");
  if (fs::exists(name_, error)) return InvalidArgument("out: %s exists already", Quote(name_));
  return absl::OkStatus();
}

Status PartDirectory::Make() {
  POLYAD_RETURN_IF_ERROR(CheckFree());
  std::error_code error;
  const fs::path parent = fs::path(path_).parent_path();
  if (!parent.empty()) fs::create_directories(parent, error);
  made_ = fs::create_directory(path_, error);
  if (made_) return absl::OkStatus();
  return Internal("out: %s cannot be made: %s", Quote(path_),
                  error ? error.message() : "it is there");
}

Status PartDirectory::Finish() {
  std::error_code error;
  fs::rename(path_, name_, error);
  if (error) return Internal("out: %s: %s", Quote(name_), error.message());
  made_ = false;
  path_ = name_;
  return absl::OkStatus();
}

}  // namespace polyad
