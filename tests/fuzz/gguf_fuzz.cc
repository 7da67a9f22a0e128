// Any bytes as a GGUF file: parsing, the spec, the tokenizer and every tensor either succeed or
// give a status.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "engine/io/gguf.h"
#include "engine/spec/gguf_spec.h"
#include "engine/spec/model_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  auto file = polyad::GgufFile::FromFile(polyad::RandomAccessFile::FromBytes(bytes, "x.gguf"));
  if (!file.ok()) return 0;
  for (const polyad::TensorInfo& info : file->tensors()) (void)file->Read(info.name).ok();
  (void)polyad::TokenizerFromGguf(*file).ok();
  auto spec = polyad::SpecFromGguf(*file);
  if (!spec.ok()) return 0;
  auto source = std::make_unique<polyad::GgufFile>(*std::move(file));
  const auto model =
      polyad::ModelFiles::Create(*std::move(spec), polyad::WeightFormat::kGguf, std::move(source));
  if (!model.ok()) return 0;
  for (const polyad::WeightEntry& entry : model->weights()) {
    (void)model->ReadWeight(entry.layer, entry.kind).ok();
  }
  return 0;
}
