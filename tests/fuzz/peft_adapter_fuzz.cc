// Any adapter in the layout of PEFT, as adapter_fuzzing.h writes it, X-LoRA's with the
// configurations of its folders in one: loaded and packed, or refused with a status.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "tests/fuzz/adapter_fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::optional<polyad::AdapterText> adapter = polyad::BuildAdapter(data, size);
  if (!adapter) return 0;
  const bool mixes = adapter->config.find("\"xlora\"") != std::string::npos;
  const auto format = mixes ? polyad::AdapterFormat::kPeftXlora : polyad::AdapterFormat::kPeft;
  polyad::LoadAdapterBytes(std::move(adapter->config), std::move(adapter->tensors), format,
                           adapter->options);
  return 0;
}
