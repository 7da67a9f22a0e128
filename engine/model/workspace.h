#pragma once

// Working rows cut from backend memory, sized once for the largest step. Pages that no step touches
// cost no memory.

#include <memory>
#include <vector>

#include "engine/base/status.h"
#include "kernels/api/backend.h"

namespace polyad {

class RowCarver {
 public:
  // What it hands out lives as long as `memory`.
  RowCarver(Backend& backend, std::vector<std::shared_ptr<void>>& memory)
      : backend_(backend), memory_(memory) {}

  StatusOr<FloatRows> Floats(int64_t rows, int64_t cols) {
    POLYAD_ASSIGN_OR_RETURN(void* data, Bytes(rows * cols * 4));
    return FloatRows{static_cast<float*>(data), rows, cols, cols};
  }
  StatusOr<ActivationRows> Activations(int64_t rows, int64_t cols) {
    const DType dtype = backend_.activation_dtype();
    POLYAD_ASSIGN_OR_RETURN(void* data, Bytes(rows * RowBytes(dtype, cols)));
    return ActivationRows{data, dtype, rows, cols, cols};
  }

 private:
  StatusOr<void*> Bytes(int64_t bytes) {
    POLYAD_ASSIGN_OR_RETURN(std::shared_ptr<void> block, backend_.Allocate(bytes));
    memory_.push_back(block);
    return block.get();
  }
  Backend& backend_;
  std::vector<std::shared_ptr<void>>& memory_;
};

}  // namespace polyad
