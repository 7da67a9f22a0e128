#pragma once

// Grow-only working memory of one thread, aligned to 64 bytes: sized by the largest call so far,
// freed with the thread.

#include <cstdint>
#include <cstdlib>

#include "kernels/api/check.h"

namespace polyad::cpu {

class Scratch {
 public:
  Scratch() = default;
  ~Scratch() { std::free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Contents are undefined; the last Reserve's pointer dies.
  char* Reserve(int64_t bytes) {
    if (bytes > size_) {
      std::free(memory_);
      size_ = (bytes + 4095) / 4096 * 4096;
      memory_ = static_cast<char*>(std::aligned_alloc(64, static_cast<size_t>(size_)));
      KERNEL_CHECK(memory_ != nullptr, "no memory for working rows");
    }
    return memory_;
  }

 private:
  char* memory_ = nullptr;
  int64_t size_ = 0;
};

// Prepared inputs of the calling thread's product; middles of the tasks a worker runs (also on the
// calling thread).
inline Scratch& InputScratch() {
  static thread_local Scratch scratch;
  return scratch;
}
inline Scratch& WorkerScratch() {
  static thread_local Scratch scratch;
  return scratch;
}

// A run of input rows as fp32.
inline Scratch& RowScratch() {
  static thread_local Scratch scratch;
  return scratch;
}

// Sums that an op scales before they go on to y.
inline Scratch& SinkScratch() {
  static thread_local Scratch scratch;
  return scratch;
}

}  // namespace polyad::cpu
