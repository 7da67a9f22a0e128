#pragma once

// Adapters that must not be loaded: a good one of the tiny llama, spoiled in one place each, made
// anew at every run. With each the status that it gets and what the message must say, which is what
// an operator needs to find the place. Sources: docs/adapters.md's refusals, the safetensors
// format, and what loaders of others fell for (files larger than they say, pickles, links,
// devices).

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace polyad {

struct HostileFile {
  std::string what;
  std::string says;                                         // in the message
  std::function<void(const std::filesystem::path&)> write;  // into this directory, which is empty
};

// The good one.
void WriteGoodAdapter(const std::filesystem::path& folder);
// `outside` is a directory beyond every adapter root.
std::vector<HostileFile> HostileFiles(const std::filesystem::path& outside);

}  // namespace polyad
