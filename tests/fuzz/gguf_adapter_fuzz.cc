// Any bytes as adapter.gguf: loaded and packed, or refused with a status.

#include <cstddef>
#include <cstdint>
#include <string>

#include "tests/fuzz/adapter_fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  polyad::LoadAdapterBytes("", std::string(reinterpret_cast<const char*>(data), size),
                           polyad::AdapterFormat::kGguf, {});
  return 0;
}
