#pragma once

// Bytes of hostile and honest files for tests, and a directory that vanishes with the test.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace polyad {

template <typename Number>
std::string Raw(Number number) {
  std::string bytes(sizeof(number), '\0');
  std::memcpy(bytes.data(), &number, sizeof(number));
  return bytes;
}

// A safetensors file: length, header, then `data_bytes` bytes counting up from 0.
inline std::string SafetensorsBytes(const std::string& header, size_t data_bytes) {
  std::string bytes = Raw(static_cast<uint64_t>(header.size())) + header;
  for (size_t i = 0; i < data_bytes; ++i) bytes += static_cast<char>(i);
  return bytes;
}

// Writes GGUF piece by piece; every method may be given lies.
class GgufBuilder {
 public:
  explicit GgufBuilder(uint32_t version = 3) : version_(version) {}

  static std::string Text(std::string_view text) {
    return Raw(static_cast<uint64_t>(text.size())) + std::string(text);
  }

  GgufBuilder& Pair(std::string_view key, uint32_t type, const std::string& value) {
    pairs_ += Text(key) + Raw(type) + value;
    ++num_pairs_;
    return *this;
  }
  GgufBuilder& U32(std::string_view key, uint32_t value) { return Pair(key, 4, Raw(value)); }
  GgufBuilder& F32(std::string_view key, float value) { return Pair(key, 6, Raw(value)); }
  GgufBuilder& String(std::string_view key, std::string_view value) {
    return Pair(key, 8, Text(value));
  }
  // `dimensions` innermost first, as the file has them.
  GgufBuilder& Tensor(std::string_view name, std::initializer_list<uint64_t> dimensions,
                      uint32_t type, uint64_t offset) {
    infos_ += Text(name) + Raw(static_cast<uint32_t>(dimensions.size()));
    for (const uint64_t dimension : dimensions) infos_ += Raw(dimension);
    infos_ += Raw(type) + Raw(offset);
    ++num_tensors_;
    return *this;
  }
  GgufBuilder& Counts(uint64_t num_tensors, uint64_t num_pairs) {
    num_tensors_ = num_tensors;
    num_pairs_ = num_pairs;
    return *this;
  }

  std::string Header() const {
    return "GGUF" + Raw(version_) + Raw(num_tensors_) + Raw(num_pairs_) + pairs_ + infos_;
  }
  // The header, padding to `alignment`, then the data.
  std::string Build(const std::string& data = "", size_t alignment = 32) const {
    std::string bytes = Header();
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment, '\0');
    return bytes + data;
  }

 private:
  uint32_t version_;
  uint64_t num_tensors_ = 0;
  uint64_t num_pairs_ = 0;
  std::string pairs_;
  std::string infos_;
};

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "polyad_test_XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string Write(const std::string& name, std::string_view content) const {
    const std::string file = path_ + "/" + name;
    std::filesystem::create_directories(std::filesystem::path(file).parent_path());
    std::ofstream(file, std::ios::binary)
        .write(content.data(), static_cast<std::streamsize>(content.size()));
    return file;
  }

 private:
  std::string path_;
};

}  // namespace polyad
