#pragma once

// Integer ids that do not mix: a BlockId is not a SequenceId. Ordered, hashable, printable through
// value().

#include <compare>
#include <cstdint>
#include <functional>

namespace polyad {

template <typename Tag>
class StrongId {
 public:
  constexpr StrongId() = default;
  constexpr explicit StrongId(int64_t value) : value_(value) {}
  constexpr int64_t value() const { return value_; }
  constexpr bool valid() const { return value_ >= 0; }
  friend constexpr auto operator<=>(StrongId, StrongId) = default;

 private:
  int64_t value_ = -1;
};

using SequenceId = StrongId<struct SequenceTag>;
using BlockId = StrongId<struct BlockTag>;
using AdapterVersionId =
    StrongId<struct AdapterVersionTag>;  // unique per loaded version, never reused

}  // namespace polyad

template <typename Tag>
struct std::hash<polyad::StrongId<Tag>> {
  size_t operator()(polyad::StrongId<Tag> id) const noexcept {
    return std::hash<int64_t>()(id.value());
  }
};
