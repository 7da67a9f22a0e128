#pragma once

// An op kept by the reference backend: its own copy of the tensors, in the form they came. Visit it
// through op(), whose views are into that copy.

#include <cstring>
#include <memory>
#include <span>
#include <type_traits>
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
    constexpr Precision kPrecision = std::is_same_v<T, float>      ? Precision::kF32
                                     : std::is_same_v<T, uint32_t> ? Precision::k1Bit
                                                                   : Precision::kIndex;
    bytes_ += {kPrecision, static_cast<int64_t>(values.size_bytes())};
    return Copy(values);
  }
  TensorView Keep(const TensorView& view);
  template <typename T>
  std::span<const T> Copy(std::span<const T> values) {
    auto bytes = std::make_unique<unsigned char[]>(values.size_bytes() + 1);
    if (!values.empty()) std::memcpy(bytes.get(), values.data(), values.size_bytes());
    memory_.push_back(std::move(bytes));
    return {reinterpret_cast<const T*>(memory_.back().get()), values.size()};
  }

  std::vector<std::unique_ptr<unsigned char[]>> memory_;
  PrecisionBytes bytes_;
  DeltaOp op_;
};

}  // namespace polyad::ref
