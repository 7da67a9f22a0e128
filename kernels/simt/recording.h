#pragma once

// Launches and clears that are kept, in their order and with copies of their arguments, to be run
// later: as a CUDA graph, or one after the other. Two recordings of the same shape have the same
// kernels and clears of as many bytes in the same order, so that a graph made of one can be changed
// into the other item by item (what the CUDA runtime promises of nodes: a memset's size may be
// refused). Plain data; one thread.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "kernels/simt/launch_shape.h"

namespace polyad::simt {

class Recording {
 public:
  static constexpr int kMaxArguments = 8;
  struct Item {
    const void* kernel = nullptr;  // null: a clear
    // The kernel with its arguments, for whom calls it as a function (the emulator).
    void (*call)(const Recording& recording, const Item& item) = nullptr;
    LaunchShape shape;
    int num_arguments = 0;
    std::array<uint32_t, kMaxArguments + 1> at = {};  // where each begins, and the last one's end
    void* to = nullptr;                               // of a clear
    int64_t bytes = 0;
  };
  using Call = void (*)(const Recording& recording, const Item& item);

  template <typename... Parameters>
  void AddLaunch(const LaunchShape& shape, const void* kernel, Call call,
                 const Parameters&... arguments) {
    static_assert(sizeof...(Parameters) <= kMaxArguments);
    Item item;
    item.kernel = kernel;
    item.call = call;
    item.shape = shape;
    (AddArgument(item, arguments), ...);
    items_.push_back(item);
  }
  void AddClear(void* to, int64_t bytes);
  void Clear();

  const std::vector<Item>& items() const { return items_; }
  bool empty() const { return items_.empty(); }
  const void* Argument(const Item& item, int i) const {
    return bytes_.data() + item.at[static_cast<size_t>(i)];
  }
  // Equal for the same shape.
  uint64_t ShapeHash() const;
  bool SameShape(const Recording& other) const;
  // Of one of the same shape: the items whose sizes, arguments or memory differ, in order.
  std::vector<int32_t> DifferencesFrom(const Recording& other) const;
  // Item i of one of the same shape in place of its own.
  void TakeItem(int32_t i, const Recording& other);

 private:
  template <typename T>
  void AddArgument(Item& item, T argument) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= alignof(std::max_align_t));
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
    __builtin_clear_padding(&argument);  // so that equal arguments have equal bytes
#endif
    const size_t begin = (bytes_.size() + alignof(T) - 1) / alignof(T) * alignof(T);
    bytes_.resize(begin + sizeof(T));
    std::memcpy(bytes_.data() + begin, &argument, sizeof(T));
    const auto i = static_cast<size_t>(item.num_arguments++);
    item.at[i] = static_cast<uint32_t>(begin);
    item.at[i + 1] = static_cast<uint32_t>(bytes_.size());
  }
  bool SameArguments(const Item& own, const Recording& other, const Item& others) const;

  std::vector<Item> items_;
  std::vector<std::byte> bytes_;  // of arguments, one after the other
};

}  // namespace polyad::simt
