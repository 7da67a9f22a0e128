// Any bytes: parsing and reading every tensor either succeed or give a status; what is read lies
// inside the file.

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/base/check.h"
#include "engine/io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using polyad::RandomAccessFile;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const auto file =
      polyad::SafetensorsFile::FromFile(RandomAccessFile::FromBytes(bytes, "x.safetensors"));
  if (!file.ok()) return 0;
  int64_t total = 0;
  for (const polyad::TensorInfo& info : file->tensors()) {
    total += info.bytes;
    const auto tensor = file->Read(info.name);
    POLYAD_CHECK(tensor.ok() == info.dtype.has_value(), "known types read, others are refused");
    if (tensor.ok()) POLYAD_CHECK(tensor->bytes.size() == info.bytes, "the size it promised");
  }
  POLYAD_CHECK(total <= static_cast<int64_t>(size), "tensors do not overlap");
  return 0;
}
