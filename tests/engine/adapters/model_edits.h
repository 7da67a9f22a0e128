#pragma once

// A model directory made from a golden one by changing some of its numbers: what a fine-tune of it
// would be. Every tensor is written as f32 or bf16, in the golden's own layout. Test-only.

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "engine/io/float_bits.h"
#include "engine/io/safetensors_writer.h"
#include "engine/spec/model_files.h"

namespace polyad {

// Changes a tensor's values in place; its name is the file's.
using TensorEdit = std::function<void(const std::string& name, std::vector<float>& values)>;

inline std::string GoldenModel(const std::string& name) {
  return std::string(POLYAD_SOURCE_DIR) + "/tests/golden/models/" + name;
}

inline void WriteEdited(const std::string& model, const std::string& directory,
                        const TensorEdit& edit, bool as_bf16 = false) {
  const StatusOr<ModelFiles> files = OpenModel(model);
  const auto check = [](bool holds) {
    if (!holds) std::abort();
  };
  check(files.ok());
  std::filesystem::create_directories(directory);
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json"}) {
    if (!std::filesystem::exists(model + "/" + name)) continue;
    std::filesystem::copy_file(model + "/" + name, directory + "/" + name);
  }
  std::vector<TensorToWrite> tensors;
  for (const TensorInfo& info : files->source().tensors()) {
    const int64_t count = *NumElements(info.shape);
    tensors.push_back({info.name, as_bf16 ? "BF16" : "F32", info.shape, count * (as_bf16 ? 2 : 4)});
  }
  auto writer = SafetensorsWriter::Create(directory + "/model.safetensors", tensors);
  check(writer.ok());
  for (const TensorInfo& info : files->source().tensors()) {
    const auto tensor = files->source().Read(info.name);
    check(tensor.ok());
    std::vector<float> values = *ToFloats(*tensor);
    edit(info.name, values);
    std::vector<uint16_t> rounded;
    for (const float value : values) rounded.push_back(FloatToBFloat16(value));
    const void* data = as_bf16 ? static_cast<const void*>(rounded.data()) : values.data();
    const size_t bytes = values.size() * (as_bf16 ? 2 : 4);
    check((*writer)->Write({static_cast<const uint8_t*>(data), bytes}).ok());
  }
  check((*writer)->Finish().ok());
}

}  // namespace polyad
