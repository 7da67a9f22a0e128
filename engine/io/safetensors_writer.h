#pragma once

// Writes a safetensors file tensor by tensor: the header first, from sizes given up front, then the
// tensors' bytes in the order listed, so that no more than one of them is held. The file has its
// name once Finish succeeds; until then it ends in ".part", and a writer that dies removes that.
// One thread. INTERNAL: the system refused a write.

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/base/status.h"

namespace polyad {

struct TensorToWrite {
  std::string name;
  std::string type;  // safetensors' name for it: "F16"
  std::vector<int64_t> shape;
  int64_t bytes = 0;
};

class SafetensorsWriter {
 public:
  static StatusOr<std::unique_ptr<SafetensorsWriter>> Create(const std::string& path,
                                                             std::vector<TensorToWrite> tensors);
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;
  ~SafetensorsWriter();

  // The next tensor's bytes, exactly as many as were announced.
  Status Write(std::span<const uint8_t> bytes);
  // The next of them, for a tensor that nobody holds whole; none is empty.
  Status WritePiece(std::span<const uint8_t> bytes);
  Status Finish();  // every tensor was written

 private:
  SafetensorsWriter(std::string path, std::vector<TensorToWrite> tensors)
      : path_(std::move(path)), tensors_(std::move(tensors)) {}
  Status WriteBytes(const void* data, size_t size);
  std::string PartName() const { return path_ + ".part"; }

  const std::string path_;
  const std::vector<TensorToWrite> tensors_;
  size_t next_ = 0;
  int64_t written_ = 0;  // bytes of the tensor `next_`
  std::FILE* file_ = nullptr;
};

}  // namespace polyad
