#pragma once

// An op kept by the reference backend: its own copy of the tensors, in the form they came. Visit it
// through op(), whose views are into that copy.

#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "kernels/api/delta_op.h"

namespace polyad::ref {

class StoredDelta final : public PackedDelta {
 public:
  explicit StoredDelta(const DeltaOp& op);  // an op that CheckDeltaOp accepts
  DeltaCost cost() const override;
  const DeltaOp& op() const { return op_; }

 private:
  struct Keeper;  // copies one kind of op

  template <typename T>
  std::span<const T> Keep(std::span<const T> values) {
    auto bytes = std::make_unique<unsigned char[]>(values.size_bytes() + 1);
    if (!values.empty()) std::memcpy(bytes.get(), values.data(), values.size_bytes());
    memory_.push_back(std::move(bytes));
    bytes_ += static_cast<int64_t>(values.size_bytes());
    return {reinterpret_cast<const T*>(memory_.back().get()), values.size()};
  }
  TensorView Keep(const TensorView& view);

  std::vector<std::unique_ptr<unsigned char[]>> memory_;
  int64_t bytes_ = 0;
  DeltaOp op_;
};

}  // namespace polyad::ref
