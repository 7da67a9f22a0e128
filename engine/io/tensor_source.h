#pragma once

// Where weights come from, whatever the container: one safetensors file, a sharded set, or a GGUF
// file. A source lists its tensors (checked once when it opened) and reads one at a time into
// memory the caller owns. Shapes are outermost first: a matrix is [rows = out, cols = in]. Read is
// thread-safe.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/base/status.h"
#include "engine/io/file.h"
#include "kernels/api/dtype.h"
#include "kernels/api/tensor_view.h"

namespace polyad {

struct TensorInfo {
  std::string name;
  std::string stored_type;  // as the file names it: "BF16", "Q5_K"
  std::optional<DType>
      dtype;  // what Read gives; nullopt: Read refuses the tensor, naming stored_type
  std::vector<int64_t> shape;
  int64_t bytes = 0;  // as stored, which is what Read gives but for grouped rows
};

// A tensor in memory of its own. Movable; views borrow from it.
struct OwnedTensor {
  OwnedBytes bytes;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::shared_ptr<const GroupedRows> grouped;  // in place of bytes where dtype is kGrouped

  // A scalar is 1 x 1, a vector one row; leading dimensions beyond two are rows.
  TensorView view() const;
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  virtual const TensorInfo* Find(const std::string& name) const = 0;
  // NOT_FOUND: no such tensor. UNIMPLEMENTED: a stored type we do not read. DATA_LOSS: the file
  // changed or ended.
  virtual StatusOr<OwnedTensor> Read(const std::string& name) const = 0;
};

// Elements of a shape; nullopt when the product leaves int64.
std::optional<int64_t> NumElements(const std::vector<int64_t>& shape);
std::string ShapeToString(const std::vector<int64_t>& shape);  // "[8, 576]"

// Elements of f32, f16, bf16, f64, a block type or grouped rows as f32; UNIMPLEMENTED for other
// types.
StatusOr<std::vector<float>> ToFloats(const OwnedTensor& tensor);
// One row of those types: out[0, cols). A row of blocks is whole blocks.
void RowToFloats(const OwnedTensor& tensor, int64_t row, float* out);

}  // namespace polyad
