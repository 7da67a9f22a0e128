#pragma once

// simt.h for the CUDA compiler: every function is an intrinsic or one instruction of PTX, and a
// SharedArray is a pointer. sm_80 and later (cp.async, ldmatrix, mma.m16n8k16 of bf16: PTX ISA 7.0
// and later). Included by simt.h alone. Launch errors stay in the CUDA runtime, which the caller
// asks once a step.

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

// Threads of a block, and where it matters the blocks that a multiprocessor shall hold at once.
#define SIMT_KERNEL(...) __global__ __launch_bounds__(__VA_ARGS__)
#define SIMT_FUNCTION __device__ __forceinline__
#define SIMT_HOST_DEVICE __host__ __device__ inline
#define SIMT_UNROLL _Pragma("unroll")
#define SIMT_ROLLED _Pragma("unroll 1")  // for the registers

#include "kernels/simt/bf16.h"
#include "kernels/simt/recording.h"

namespace polyad::simt {

SIMT_FUNCTION int ThreadIndex() { return static_cast<int>(threadIdx.x); }
SIMT_FUNCTION int Lane() { return ThreadIndex() % kWarpThreads; }
SIMT_FUNCTION int WarpIndex() { return ThreadIndex() / kWarpThreads; }
SIMT_FUNCTION int64_t BlockIndex() { return blockIdx.x; }
SIMT_FUNCTION int64_t NumBlocks() { return gridDim.x; }

SIMT_FUNCTION void BlockBarrier() { __syncthreads(); }
SIMT_FUNCTION void WarpBarrier() { __syncwarp(); }

template <typename T>
SIMT_FUNCTION T Shuffle(T value, int from_lane) {
  return __shfl_sync(0xffffffffu, value, from_lane);
}
template <typename T>
SIMT_FUNCTION T ShuffleXor(T value, int lane_mask) {
  return __shfl_xor_sync(0xffffffffu, value, lane_mask);
}
SIMT_FUNCTION uint32_t Ballot(bool vote) { return __ballot_sync(0xffffffffu, vote); }

struct __align__(16) Words4 {
  uint32_t word[4];
};

SIMT_FUNCTION Words4 Load16(const void* from) { return *static_cast<const Words4*>(from); }

template <typename T>
class SharedArray {
 public:
  SIMT_FUNCTION explicit SharedArray(T* data) : data_(data) {}

  SIMT_FUNCTION T Load(int i) const { return data_[i]; }
  SIMT_FUNCTION void Store(int i, T value) const { data_[i] = value; }
  SIMT_FUNCTION uint32_t Load4(int i) const {
    return *reinterpret_cast<const uint32_t*>(data_ + i);
  }
  SIMT_FUNCTION void Store4(int i, uint32_t value) const {
    *reinterpret_cast<uint32_t*>(data_ + i) = value;
  }
  SIMT_FUNCTION Words4 Load16(int i) const { return *reinterpret_cast<const Words4*>(data_ + i); }
  SIMT_FUNCTION void Store16(int i, const Words4& value) const {
    *reinterpret_cast<Words4*>(data_ + i) = value;
  }
  SIMT_FUNCTION uint32_t Address(int i) const {
    return static_cast<uint32_t>(__cvta_generic_to_shared(data_ + i));
  }

 private:
  T* data_;
};

#define SIMT_SHARED(T, name, count)                  \
  __shared__ __align__(16) T name##_elements[count]; \
  const ::polyad::simt::SharedArray<T> name(name##_elements)

template <typename T>
SIMT_FUNCTION SharedArray<T> DynamicShared(int64_t offset_bytes, int) {
  extern __shared__ __align__(16) unsigned char simt_dynamic_bytes[];
  return SharedArray<T>(reinterpret_cast<T*>(simt_dynamic_bytes + offset_bytes));
}

template <typename T>
SIMT_FUNCTION void CopyAsync16(const SharedArray<T>& to, int i, const void* from,
                               int valid_bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to.Address(i)),
               "l"(__cvta_generic_to_global(from)), "r"(valid_bytes)
               : "memory");
}
SIMT_FUNCTION void CommitCopies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int kStillRunning>
SIMT_FUNCTION void WaitCopies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kStillRunning) : "memory");
}

SIMT_FUNCTION void LoadMatrix4(uint32_t (&to)[4], const SharedArray<Bf16>& tile, int i) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(tile.Address(i))
               : "memory");
}
SIMT_FUNCTION void LoadMatrix4Transposed(uint32_t (&to)[4], const SharedArray<Bf16>& tile, int i) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(tile.Address(i))
               : "memory");
}
SIMT_FUNCTION void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

SIMT_FUNCTION float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
SIMT_FUNCTION float Exp(float x) { return expf(x); }
SIMT_FUNCTION float Tanh(float x) { return tanhf(x); }
SIMT_FUNCTION float Erf(float x) { return erff(x); }
SIMT_FUNCTION float InverseRoot(float x) { return 1.0f / sqrtf(x); }

// Where launches go: into the queue, or where they are recorded instead.
struct Stream {
  cudaStream_t queue = nullptr;
  Recording* recording = nullptr;
};
// For libraries, which queue by themselves: their work cannot be recorded.
inline bool Records(const Stream& stream) { return stream.recording != nullptr; }
inline void* QueueOf(const Stream& stream) { return stream.queue; }

template <typename... Parameters>
void Launch(const LaunchShape& shape, const Stream& stream, void (*kernel)(Parameters...),
            std::type_identity_t<Parameters>... arguments) {
  if (shape.shared_bytes > kMaxStaticShared) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes);
  }
  if (stream.recording != nullptr) {
    stream.recording->AddLaunch(shape, reinterpret_cast<const void*>(kernel), nullptr,
                                arguments...);
    return;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = stream.queue;
  cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace polyad::simt
