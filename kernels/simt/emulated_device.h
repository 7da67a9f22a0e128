#pragma once

// simt.h for a C++ compiler: every function is a call of the emulated block whose thread is
// running. Shared memory is checked at each access (shared_memory.h); a matrix load reads its row
// when its lane arrives, so a missing barrier before it shows under any order. Global memory is
// plain memory, for AddressSanitizer and ThreadSanitizer to check. Included by simt.h alone.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernels/simt/emulated_block.h"
#include "kernels/simt/emulated_matrix.h"
#include "kernels/simt/emulated_stream.h"
#include "kernels/simt/recording.h"

#define SIMT_KERNEL(...) inline
#define SIMT_FUNCTION inline
#define SIMT_HOST_DEVICE inline
#define SIMT_UNROLL
#define SIMT_ROLLED
// Functions that read registers of other lanes, all of which wait: no race, whatever
// ThreadSanitizer takes the lanes for.
#define SIMT_ALL_LANES_WAIT __attribute__((no_sanitize("thread")))

#include "kernels/simt/bf16.h"

namespace polyad::simt {

inline int ThreadIndex() { return EmulatedBlock::Current().thread(); }
inline int Lane() { return ThreadIndex() % kWarpThreads; }
inline int WarpIndex() { return ThreadIndex() / kWarpThreads; }
inline int64_t BlockIndex() { return EmulatedBlock::Current().index(); }
inline int64_t NumBlocks() { return EmulatedBlock::Current().num_blocks(); }

inline void BlockBarrier(int line = __builtin_LINE()) {
  EmulatedBlock::Current().BlockBarrier(line);
}
inline void WarpBarrier(int line = __builtin_LINE()) { EmulatedBlock::Current().WarpBarrier(line); }

template <typename T>
struct ShuffleOperand {
  T value;
  int lane;
  T result;

  SIMT_ALL_LANES_WAIT static void Run(void* const* operands) {
    for (int i = 0; i < kWarpThreads; ++i) {
      auto& own = *static_cast<ShuffleOperand*>(operands[i]);
      own.result = static_cast<const ShuffleOperand*>(operands[own.lane % kWarpThreads])->value;
    }
  }
};

template <typename T>
T Shuffle(T value, int from_lane, int line = __builtin_LINE()) {
  ShuffleOperand<T> operand{value, from_lane, value};
  EmulatedBlock::Current().WarpCall(&ShuffleOperand<T>::Run, &operand, line);
  return operand.result;
}

template <typename T>
T ShuffleXor(T value, int lane_mask, int line = __builtin_LINE()) {
  return Shuffle(value, Lane() ^ lane_mask, line);
}

inline uint32_t Ballot(bool vote, int line = __builtin_LINE()) {
  struct Operand {
    bool vote;
    uint32_t votes;
    SIMT_ALL_LANES_WAIT static void Run(void* const* operands) {
      uint32_t votes = 0;
      for (int i = 0; i < kWarpThreads; ++i) {
        if (static_cast<const Operand*>(operands[i])->vote) votes |= 1u << i;
      }
      for (int i = 0; i < kWarpThreads; ++i) static_cast<Operand*>(operands[i])->votes = votes;
    }
  };
  Operand operand{vote, 0};
  EmulatedBlock::Current().WarpCall(&Operand::Run, &operand, line);
  return operand.votes;
}

// Four registers: 16 bytes that move as one.
struct Words4 {
  uint32_t word[4];
};

inline Words4 Load16(const void* from, int line = __builtin_LINE()) {
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0) {
    EmulatedBlock::Current().Fail("loads 16 bytes from an address that is not aligned for it",
                                  line);
  }
  Words4 words;
  std::memcpy(&words, from, sizeof(words));
  return words;
}

// An array in the shared memory of a block.
template <typename T>
class SharedArray {
 public:
  SharedArray(unsigned char* bytes, int count) : bytes_(bytes), count_(count) {}

  T Load(int i, int line = __builtin_LINE()) const { return LoadAs<T>(i, line); }
  void Store(int i, T value, int line = __builtin_LINE()) const { StoreAs<T>(i, value, line); }
  // Several elements at once, from element i on, which must be aligned for them.
  uint32_t Load4(int i, int line = __builtin_LINE()) const { return LoadAs<uint32_t>(i, line); }
  void Store4(int i, uint32_t value, int line = __builtin_LINE()) const {
    StoreAs<uint32_t>(i, value, line);
  }
  Words4 Load16(int i, int line = __builtin_LINE()) const { return LoadAs<Words4>(i, line); }
  void Store16(int i, const Words4& value, int line = __builtin_LINE()) const {
    StoreAs<Words4>(i, value, line);
  }
  unsigned char* At(int i, int64_t bytes, int line) const {
    if (i < 0 ||
        i * static_cast<int64_t>(sizeof(T)) + bytes > count_ * static_cast<int64_t>(sizeof(T))) {
      EmulatedBlock::Current().Fail("reaches outside of a shared array", line);
    }
    return bytes_ + static_cast<size_t>(i) * sizeof(T);
  }

 private:
  template <typename V>
  V LoadAs(int i, int line) const {
    const unsigned char* at = At(i, sizeof(V), line);
    EmulatedBlock::Current().BeforeRead(at, sizeof(V), line);
    V value;
    std::memcpy(&value, at, sizeof(V));
    return value;
  }
  template <typename V>
  void StoreAs(int i, const V& value, int line) const {
    unsigned char* at = At(i, sizeof(V), line);
    EmulatedBlock::Current().BeforeWrite(at, sizeof(V), line);
    std::memcpy(at, &value, sizeof(V));
  }

  unsigned char* bytes_;
  int count_;
};

#define SIMT_SHARED(T, name, count)                                                            \
  static const char name##_key = 0;                                                            \
  const ::polyad::simt::SharedArray<T> name(                                                   \
      ::polyad::simt::EmulatedBlock::Current().Place(&name##_key, sizeof(T) * (count), #name), \
      count)

template <typename T>
SharedArray<T> DynamicShared(int64_t offset_bytes, int count) {
  return {
      EmulatedBlock::Current().PlaceDynamic(offset_bytes, count * static_cast<int64_t>(sizeof(T))),
      count};
}

template <typename T>
void CopyAsync16(const SharedArray<T>& to, int i, const void* from, int valid_bytes = 16,
                 int line = __builtin_LINE()) {
  EmulatedBlock::Current().CopyAsync(to.At(i, 16, line), from, valid_bytes, line);
}
inline void CommitCopies() { EmulatedBlock::Current().CommitCopies(); }
template <int kStillRunning>
void WaitCopies() {
  EmulatedBlock::Current().WaitCopies(kStillRunning);
}

inline void LoadMatrixBy(WarpFunction function, uint32_t (&to)[4], const SharedArray<Bf16>& tile,
                         int i, int line) {
  LoadMatrixOperand operand{to, {}};
  const Words4 row = tile.Load16(i, line);
  std::memcpy(operand.row, &row, sizeof(row));
  EmulatedBlock::Current().WarpCall(function, &operand, line);
}
// Lane 8 m + r hands in where row r of matrix m begins.
inline void LoadMatrix4(uint32_t (&to)[4], const SharedArray<Bf16>& tile, int i,
                        int line = __builtin_LINE()) {
  LoadMatrixBy(&EmulateLoadMatrix, to, tile, i, line);
}
inline void LoadMatrix4Transposed(uint32_t (&to)[4], const SharedArray<Bf16>& tile, int i,
                                  int line = __builtin_LINE()) {
  LoadMatrixBy(&EmulateLoadMatrixTransposed, to, tile, i, line);
}
inline void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                    int line = __builtin_LINE()) {
  MmaOperand operand{d, a, b};
  EmulatedBlock::Current().WarpCall(&EmulateMma, &operand, line);
}

inline float Fma(float a, float b, float c) { return std::fma(a, b, c); }
inline float Exp(float x) { return std::exp(x); }
inline float Tanh(float x) { return std::tanh(x); }
inline float Erf(float x) { return std::erf(x); }
inline float InverseRoot(float x) { return 1.0f / std::sqrt(x); }

using Stream = EmulatedStream*;
inline bool Records(Stream stream) { return stream->records(); }
inline void* QueueOf(Stream stream) { return stream; }

// A recorded launch of a kernel, by one of its threads.
template <typename... Parameters>
void CallRecorded(const Recording& recording, const Recording::Item& item) {
  const auto kernel = reinterpret_cast<void (*)(Parameters...)>(const_cast<void*>(item.kernel));
  [&]<size_t... kIndex>(std::index_sequence<kIndex...>) {
    kernel(*static_cast<const Parameters*>(recording.Argument(item, static_cast<int>(kIndex)))...);
  }
  (std::index_sequence_for<Parameters...>());
}

template <typename... Parameters>
void Launch(const LaunchShape& shape, Stream stream, void (*kernel)(Parameters...),
            std::type_identity_t<Parameters>... arguments) {
  if (Recording* to = stream->recording()) {
    to->AddLaunch(shape, reinterpret_cast<const void*>(kernel), &CallRecorded<Parameters...>,
                  arguments...);
    return;
  }
  stream->Run(shape, [&] { kernel(arguments...); });
}

}  // namespace polyad::simt
