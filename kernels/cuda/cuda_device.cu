#include <algorithm>

#include "kernels/cuda/cuda_device.h"

namespace polyad::cuda {
namespace {

std::string Saying(cudaError_t error, const char* what) {
  return std::string(what) + ": " + cudaGetErrorString(error);
}

}  // namespace

std::unique_ptr<CudaDevice> CudaDevice::Create(int index, int64_t memory_bytes,
                                               std::string& wrong) {
  std::unique_ptr<CudaDevice> device(new CudaDevice(index));
  wrong = device->Open(memory_bytes);
  return wrong.empty() ? std::move(device) : nullptr;
}

std::string CudaDevice::Open(int64_t memory_bytes) {
  cudaDeviceProp properties = {};
  cudaError_t error = cudaGetDeviceProperties(&properties, index_);
  if (error == cudaSuccess) error = cudaSetDevice(index_);
  if (error != cudaSuccess) return Saying(error, "the device cannot be opened");
  name_ = properties.name;
  if (properties.concurrentManagedAccess == 0 || properties.memoryPoolsSupported == 0) {
    return "it has no managed memory that the host may use beside launches, or no memory pools";
  }
  const auto all = static_cast<int64_t>(properties.totalGlobalMem);
  most_bytes_ = memory_bytes > 0 ? std::min(memory_bytes, all) : all;
  cudaMemPoolProps pool = {};
  pool.allocType = cudaMemAllocationTypePinned;
  pool.location = {cudaMemLocationTypeDevice, index_};
  error = cudaMemPoolCreate(&pool_, &pool);
  if (error != cudaSuccess) return Saying(error, "a memory pool");
  uint64_t keeps = UINT64_MAX;
  error = cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keeps);
  for (cudaStream_t* stream : {&engine_, &loader_, &upload_, &allocate_}) {
    if (error == cudaSuccess) error = cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking);
  }
  return error == cudaSuccess ? "" : Saying(error, "streams");
}

CudaDevice::~CudaDevice() {
  Use();
  for (cudaStream_t stream : {engine_, loader_, upload_, allocate_}) {
    if (stream == nullptr) continue;
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
  }
  if (pool_ != nullptr) cudaMemPoolDestroy(pool_);
}

void CudaDevice::Use() const { cudaSetDevice(index_); }

void CudaDevice::Note(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  const std::lock_guard lock(mutex_);
  if (wrong_.empty()) wrong_ = name_ + ": " + Saying(error, what);
}

void* CudaDevice::Allocate(Memory kind, int64_t bytes) {
  Use();
  Note(cudaGetLastError(), "a launch");  // before a refusal takes its place
  if (kind == Memory::kPinned) {
    void* memory = nullptr;
    if (cudaMallocHost(&memory, static_cast<size_t>(bytes)) == cudaSuccess) return memory;
    cudaGetLastError();
    return nullptr;
  }
  {
    const std::lock_guard lock(mutex_);
    if (used_bytes_ + bytes > most_bytes_) return nullptr;
    used_bytes_ += bytes;
  }
  void* memory = kind == Memory::kDevice ? AllocateOnDevice(bytes) : AllocateShared(bytes);
  const std::lock_guard lock(mutex_);
  if (memory == nullptr) {
    used_bytes_ -= bytes;
  } else {
    arrays_.Add(memory, bytes);
  }
  return memory;
}

void* CudaDevice::AllocateOnDevice(int64_t bytes) {
  void* memory = nullptr;
  const cudaError_t error =
      cudaMallocFromPoolAsync(&memory, static_cast<size_t>(bytes), pool_, allocate_);
  if (error != cudaSuccess) {
    cudaGetLastError();  // a refusal is the caller's to report
    return nullptr;
  }
  Note(cudaStreamSynchronize(allocate_), "memory from the pool");
  return memory;
}

// No more than the device has free: managed memory beyond that would thrash rather than be refused.
void* CudaDevice::AllocateShared(int64_t bytes) {
  size_t free_bytes = 0;
  size_t all_bytes = 0;
  Note(cudaMemGetInfo(&free_bytes, &all_bytes), "free memory");
  if (static_cast<size_t>(bytes) > free_bytes) return nullptr;
  void* memory = nullptr;
  if (cudaMallocManaged(&memory, static_cast<size_t>(bytes)) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  Note(cudaMemAdvise(memory, static_cast<size_t>(bytes), cudaMemAdviseSetPreferredLocation,
                     {cudaMemLocationTypeDevice, index_}),
       "the home of shared memory");
  Note(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), allocate_), "zeros");
  Note(cudaStreamSynchronize(allocate_), "zeros");
  return memory;
}

void CudaDevice::Free(Memory kind, void* memory) {
  if (memory == nullptr) return;
  Use();
  if (kind == Memory::kPinned) {
    Note(cudaFreeHost(memory), "freeing pinned memory");
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    used_bytes_ -= arrays_.Remove(memory);
  }
  if (kind == Memory::kDevice) {
    Note(cudaFreeAsync(memory, engine_), "freeing device memory");
  } else {
    Note(cudaFree(memory), "freeing shared memory");
  }
}

bool CudaDevice::Reaches(const void* memory) const {
  const std::lock_guard lock(mutex_);
  return arrays_.Holds(memory);
}

void CudaDevice::Upload(void* to, const void* from, int64_t bytes) {
  Use();
  Note(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, upload_),
       "an upload");
  Note(cudaStreamSynchronize(upload_), "an upload");
}

simt::Stream CudaDevice::stream(QueueKind queue) {
  Use();  // whoever asks is about to launch
  return queue == QueueKind::kEngine ? engine_ : loader_;
}

void CudaDevice::Copy(QueueKind queue, void* to, const void* from, int64_t bytes) {
  Note(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream(queue)),
       "a copy");
}

void CudaDevice::Clear(QueueKind queue, void* to, int64_t bytes) {
  Note(cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), stream(queue)), "zeros");
}

std::string CudaDevice::Wait(QueueKind queue) {
  const cudaStream_t own = stream(queue);
  Note(cudaGetLastError(), "a launch");
  Note(cudaStreamSynchronize(own), "the device");
  const std::lock_guard lock(mutex_);
  return wrong_;
}

}  // namespace polyad::cuda
