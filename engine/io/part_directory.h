#pragma once

// A directory that is written whole or not at all: made as NAME.part, called NAME once everything
// is in it, removed where that does not come to pass. What a crash leaves is NAME.part, which Make
// then refuses by name. Errors: INVALID_ARGUMENT where NAME is there already, INTERNAL with what
// the system said.

#include <string>

#include "engine/base/status.h"

namespace polyad {

class PartDirectory {
 public:
  explicit PartDirectory(std::string name);
  PartDirectory(const PartDirectory&) = delete;
  PartDirectory& operator=(const PartDirectory&) = delete;
  ~PartDirectory();

  // Whether the name is free; before work that would be for nothing.
  Status CheckFree() const;
  Status Make();
  Status Finish();  // path() is the name's from then on
  const std::string& path() const { return path_; }

 private:
  const std::string name_;
  std::string path_;
  bool made_ = false;
};

}  // namespace polyad
