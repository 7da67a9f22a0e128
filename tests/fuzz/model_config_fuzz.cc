// Any text as config.json (up to a NUL) and generation_config.json (after it): a spec within its
// bounds, or a status.

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/base/check.h"
#include "engine/spec/hf_config.h"
#include "engine/spec/rope_frequencies.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t split = text.find('\0');
  const std::string generation = split == std::string::npos ? "" : text.substr(split + 1);
  const auto spec = polyad::SpecFromHfConfig(text.substr(0, split), generation);
  if (!spec.ok()) return 0;
  POLYAD_CHECK(spec->hidden_size >= 1 && spec->hidden_size <= polyad::SpecLimits::kHidden,
               "hidden");
  POLYAD_CHECK(spec->head_dim >= 1 && spec->head_dim <= polyad::SpecLimits::kHeadDim, "head");
  POLYAD_CHECK(spec->num_heads % spec->num_kv_heads == 0, "heads share evenly");
  POLYAD_CHECK(static_cast<int64_t>(spec->sliding_window.size()) == spec->num_layers, "windows");
  for (const int32_t id : spec->eos_ids) {
    POLYAD_CHECK(id >= 0 && id < spec->vocab_size, "eos inside the vocabulary");
  }
  (void)polyad::RopeFrequencies(spec->rope);
  return 0;
}
