#pragma once

// The GGUF container, versions 2 and 3, little-endian: magic, counts, key/value pairs, tensor
// infos, padding, data. Counts, lengths and offsets are bounded before anything is allocated;
// tensors must be aligned, inside the file and apart from each other. Types that kernels know
// (DType) are read as stored; other block types become grouped rows (gguf_groups.h); the
// rest are refused by the one who reads the tensor. Dimensions are stored innermost first and
// listed here outermost first: a matrix is [rows = out, cols = in].
// Source: the GGUF specification in ggml's documentation; type numbers and block sizes from gguf
// 0.19 constants. Thread-safe once open. INVALID_ARGUMENT: malformed. UNIMPLEMENTED: another
// version. RESOURCE_EXHAUSTED: past a limit.

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/io/file.h"
#include "engine/io/gguf_metadata.h"
#include "engine/io/tensor_source.h"

namespace polyad {

struct GgufLimits {
  int64_t max_pairs = 65536;
  int64_t max_key_bytes = 1024;
  int64_t max_string_bytes = int64_t{16} << 20;
  int64_t max_array_elements = int64_t{1} << 23;  // of all arrays together
  int64_t max_tensors = 100'000;
  int64_t max_name_bytes = 256;
  int64_t max_header_bytes = int64_t{1} << 29;
};

class GgufFile final : public TensorSource {
 public:
  static StatusOr<GgufFile> Open(const std::string& path, const GgufLimits& limits = {});
  static StatusOr<GgufFile> FromFile(RandomAccessFile file, const GgufLimits& limits = {});

  const GgufMetadata& metadata() const { return metadata_; }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const TensorInfo* Find(const std::string& name) const override;
  StatusOr<OwnedTensor> Read(const std::string& name) const override;

 private:
  friend class GgufParser;
  struct Stored {
    uint32_t type = 0;
    int64_t offset = 0;  // from the start of the file
    int64_t bytes = 0;
  };
  explicit GgufFile(RandomAccessFile file) : file_(std::move(file)) {}

  RandomAccessFile file_;
  GgufMetadata metadata_;
  std::vector<TensorInfo> tensors_;
  std::vector<Stored> stored_;  // of tensors_[i]
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace polyad
