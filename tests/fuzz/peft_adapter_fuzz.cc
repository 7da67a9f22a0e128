// Any adapter in the layout of PEFT, as adapter_fuzzing.h writes it: loaded and packed, or refused
// with a status.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "tests/fuzz/adapter_fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::optional<polyad::AdapterText> adapter = polyad::BuildAdapter(data, size);
  if (!adapter) return 0;
  polyad::LoadAdapterBytes(std::move(adapter->config), std::move(adapter->tensors),
                           polyad::AdapterFormat::kPeft, adapter->options);
  return 0;
}
