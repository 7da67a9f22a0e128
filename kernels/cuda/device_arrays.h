#pragma once

// What a Device has given out for kernels to reach, so that it can say whether an address lies in
// it (Device::Reaches). Its owner's lock guards it.

#include <cstdint>
#include <iterator>
#include <map>

namespace polyad::cuda {

class DeviceArrays {
 public:
  void Add(const void* memory, int64_t bytes) { arrays_[static_cast<const char*>(memory)] = bytes; }
  // -> its bytes; 0 where there is no such array
  int64_t Remove(const void* memory) {
    const auto found = arrays_.find(static_cast<const char*>(memory));
    if (found == arrays_.end()) return 0;
    const int64_t bytes = found->second;
    arrays_.erase(found);
    return bytes;
  }
  bool Holds(const void* memory) const {
    const auto* at = static_cast<const char*>(memory);
    const auto after = arrays_.upper_bound(at);
    if (after == arrays_.begin()) return false;
    const auto& [begin, bytes] = *std::prev(after);
    return at < begin + bytes;
  }

 private:
  std::map<const char*, int64_t> arrays_;  // by where they begin: bytes
};

}  // namespace polyad::cuda
