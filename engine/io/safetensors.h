#pragma once

// The safetensors container: an 8-byte little-endian header length, a JSON object {name: {dtype,
// shape, data_offsets}}, then the tensors' bytes. Everything is checked before a tensor can be
// read: offsets ordered, neither overlapping nor leaving a hole, covering the file exactly, and
// equal to shape x dtype. A type we do not read is an error of the one who reads that tensor, not
// of the file. Source: safetensors format page, version 0.4 and later. Thread-safe once open.
// INVALID_ARGUMENT: a malformed file. RESOURCE_EXHAUSTED: past a limit.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/base/status.h"
#include "engine/io/file.h"
#include "engine/io/tensor_source.h"

namespace polyad {

struct SafetensorsLimits {
  int64_t max_header_bytes = int64_t{16} << 20;
  int64_t max_tensors = 200'000;
  int64_t max_name_bytes = 1024;
  int64_t max_dimensions = 8;
  int64_t max_file_bytes = int64_t{1} << 42;
};

class SafetensorsFile final : public TensorSource {
 public:
  static StatusOr<SafetensorsFile> Open(const std::string& path,
                                        const SafetensorsLimits& limits = {});
  // Takes an open file: one opened beneath a tenant's root, or RandomAccessFile::FromBytes.
  static StatusOr<SafetensorsFile> FromFile(RandomAccessFile file,
                                            const SafetensorsLimits& limits = {});

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }  // in file order
  const TensorInfo* Find(const std::string& name) const override;
  StatusOr<OwnedTensor> Read(const std::string& name) const override;

  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const RandomAccessFile& file() const { return file_; }

 private:
  explicit SafetensorsFile(RandomAccessFile file) : file_(std::move(file)) {}

  RandomAccessFile file_;
  std::vector<TensorInfo> tensors_;
  std::vector<int64_t> offsets_;  // of tensors_[i], from the start of the file
  std::unordered_map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
};

// Opens a directory's weights: model.safetensors, or the shards that model.safetensors.index.json
// maps names to.
StatusOr<std::unique_ptr<TensorSource>> OpenSafetensorsDirectory(
    const std::string& directory, const SafetensorsLimits& limits = {});

}  // namespace polyad
