#pragma once

// Goldens of tiny models as tests/golden/README.md lays them out, and the closeness that is asked
// of logits. Test-only.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "engine/io/safetensors.h"

namespace polyad {

inline constexpr double kGoldenTolerance = 1e-4;  // of the largest logit

struct GoldenPrompt {
  std::vector<int32_t> tokens;
  std::vector<float> logits;  // [at most tokens, vocab], of the last positions
  std::vector<int32_t> greedy;
};

template <typename T>
std::vector<T> ReadGoldenTensor(const SafetensorsFile& file, const std::string& name) {
  StatusOr<OwnedTensor> tensor = file.Read(name);
  POLYAD_CHECK(tensor.ok(), tensor.status().ToString().c_str());
  std::vector<T> values(static_cast<size_t>(tensor->bytes.size()) / sizeof(T));
  std::memcpy(values.data(), tensor->bytes.data(), values.size() * sizeof(T));
  return values;
}

inline std::vector<GoldenPrompt> ReadGoldenPrompts(const std::string& directory) {
  StatusOr<SafetensorsFile> file = SafetensorsFile::Open(directory + "/goldens.safetensors");
  POLYAD_CHECK(file.ok(), file.status().ToString().c_str());
  std::vector<GoldenPrompt> prompts;
  for (int i = 0; file->Find("prompt." + std::to_string(i) + ".tokens") != nullptr; ++i) {
    const std::string prefix = "prompt." + std::to_string(i);
    prompts.push_back({ReadGoldenTensor<int32_t>(*file, prefix + ".tokens"),
                       ReadGoldenTensor<float>(*file, prefix + ".logits"),
                       ReadGoldenTensor<int32_t>(*file, prefix + ".greedy")});
  }
  POLYAD_CHECK(prompts.size() >= 3, "a golden has several prompts");
  return prompts;
}

// The largest difference at the last positions, those of `expected`, in parts of the largest
// expected logit; infinite where `got` has fewer or none are expected.
inline double LogitError(const std::vector<float>& got, const std::vector<float>& expected) {
  if (expected.empty() || got.size() < expected.size()) return INFINITY;
  const size_t first = got.size() - expected.size();
  double largest = 0;
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double want = expected[i];
    largest = std::max(largest, std::abs(want));
    worst = std::max(worst, std::abs(static_cast<double>(got[first + i]) - want));
  }
  return worst / largest;
}

}  // namespace polyad
