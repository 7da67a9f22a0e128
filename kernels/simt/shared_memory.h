#pragma once

// The shared memory of one emulated block, with a record of who touched what since which barrier.
// It finds, whatever the schedule: reads of what nobody wrote, two threads at the same bytes
// without a barrier between them (one of them writing), reads and writes of bytes that an
// asynchronous copy has not been waited for. Of readers since the last write it remembers two, so a
// write that races with a third one only may go unseen. Owned by a block; its OS thread alone.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/simt/launch_shape.h"

namespace polyad::simt {

// A thread of the block and how many barriers it has passed.
struct Toucher {
  int16_t thread = -1;
  uint32_t block_barriers = 0;
  uint32_t warp_barriers = 0;
};

class SharedMemory {
 public:
  SharedMemory();

  // Forgets everything: a new block begins. The first `dynamic_bytes` are its dynamic memory.
  void Begin(int dynamic_bytes);
  // Where the array declared at `key` lies, allotting it at first. -1: more than a block may have.
  int64_t Place(const void* key, int64_t bytes);
  unsigned char* At(int64_t offset) { return bytes_.get() + offset; }
  int64_t dynamic_bytes() const { return dynamic_bytes_; }

  // What is wrong with the access, or null. Offsets and sizes are multiples of 2.
  const char* Read(int64_t offset, int64_t bytes, const Toucher& by);
  const char* Write(int64_t offset, int64_t bytes, const Toucher& by);
  // An asynchronous copy into these bytes is under way, or has been waited for by its thread.
  const char* BeginCopy(int64_t offset, int64_t bytes, const Toucher& by);
  void EndCopy(int64_t offset, int64_t bytes, const Toucher& by);

 private:
  static constexpr int64_t kGranule = 2;  // bytes; the smallest element is a bf16

  struct Record {
    Toucher writer;
    Toucher readers[2];
    bool copying = false;
  };
  struct Placed {
    const void* key;
    int64_t offset;
    int64_t bytes;
  };

  const std::unique_ptr<unsigned char[]> bytes_;
  const std::unique_ptr<Record[]> records_;
  std::vector<Placed> placed_;
  int64_t used_ = 0;
  int64_t dynamic_bytes_ = 0;
};

}  // namespace polyad::simt
