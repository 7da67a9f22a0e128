// The first byte picks a library, the rest is a safetensors file: every quantised matrix it lists
// reads as finite numbers of its shape, or is refused.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/base/check.h"
#include "engine/io/safetensors.h"
#include "engine/spec/quantized_source.h"

namespace {

polyad::QuantizationConfig ConfigOf(uint8_t choice) {
  polyad::QuantizationConfig config;
  config.method = static_cast<polyad::QuantizationMethod>(choice % 5);
  config.bits = (choice & 8) != 0 ? 8 : 4;
  config.group_size = (choice & 16) != 0 ? -1 : 32;
  config.symmetric = (choice & 32) != 0;
  config.float_codes = config.bits == 8 && (choice & 64) != 0;
  config.packed = !config.float_codes && (choice & 128) != 0;
  config.zeros_less_one = config.packed;
  return config;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  auto file = polyad::SafetensorsFile::FromFile(polyad::RandomAccessFile::FromBytes(text, "fuzz"));
  if (!file.ok()) return 0;
  auto source = polyad::OpenQuantizedSource(
      std::make_unique<polyad::SafetensorsFile>(*std::move(file)), ConfigOf(data[0]));
  if (!source.ok()) return 0;
  for (const polyad::TensorInfo& info : (*source)->tensors()) {
    if (info.dtype != polyad::DType::kGrouped) continue;
    const auto tensor = (*source)->Read(info.name);
    if (!tensor.ok()) continue;
    const auto values = polyad::ToFloats(*tensor);
    POLYAD_CHECK(values.ok(), "grouped rows are numbers");
    POLYAD_CHECK(static_cast<int64_t>(values->size()) == info.shape[0] * info.shape[1], "shape");
  }
  return 0;
}
