#pragma once

// Names of the faults that tests can plant into kernels/cuda (kernels/simt/mutation.h). Those that
// begin with "queue." are of the host's code, the others of kernels.

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <string_view>

namespace polyad::test {

inline constexpr std::string_view kQueueMutant = "queue.";

// In SIMT_MUTATE("...") and SIMT_UNLESS("...").
inline std::set<std::string> MutantsInSources() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::filesystem::path(POLYAD_SOURCE_DIR) / "kernels" / "cuda")) {
    std::ifstream file(entry.path());
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    for (const std::string_view macro : {"SIMT_MUTATE(\"", "SIMT_UNLESS(\""}) {
      for (size_t at = text.find(macro); at != std::string::npos; at = text.find(macro, at + 1)) {
        const size_t begin = at + macro.size();
        names.insert(text.substr(begin, text.find('"', begin) - begin));
      }
    }
  }
  return names;
}

}  // namespace polyad::test
