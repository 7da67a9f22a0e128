#include "tests/engine/adapters/adapter_bytes.h"

#include <cstring>
#include <filesystem>
#include <fstream>

namespace polyad {

std::string SafetensorsBytes(const std::vector<TestTensor>& tensors) {
  std::string header = "{";
  std::string data;
  for (const TestTensor& tensor : tensors) {
    if (header.size() > 1) header += ",";
    header.append("\"").append(tensor.name).append("\":{\"dtype\":\"").append(tensor.dtype);
    header.append("\",\"shape\":[");
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      if (i > 0) header.append(",");
      header.append(std::to_string(tensor.shape[i]));
    }
    header += "],\"data_offsets\":[" + std::to_string(data.size()) + ",";
    data += tensor.bytes;
    header += std::to_string(data.size()) + "]}";
  }
  header += "}";
  const auto length = static_cast<uint64_t>(header.size());
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file + header + data;
}

TestTensor FloatTensor(const std::string& name, int64_t rows, int64_t cols, float first,
                       float step) {
  std::vector<float> values(static_cast<size_t>(rows * cols));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = first + step * static_cast<float>(i % 17);
  }
  std::string bytes(values.size() * sizeof(float), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return {name, "F32", {rows, cols}, bytes};
}

void WriteAdapter(const std::string& directory, const std::string& config,
                  const std::string& tensors) {
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/adapter_config.json", std::ios::binary) << config;
  std::ofstream(directory + "/adapter_model.safetensors", std::ios::binary) << tensors;
}

}  // namespace polyad
