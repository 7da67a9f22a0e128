#include <algorithm>

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_graph.h"

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
  return error == cudaSuccess ? OpenQueues() : Saying(error, "a memory pool");
}

// Threads that wait for an upload sleep; the engine's, for K/V, does not.
std::string CudaDevice::OpenQueues() {
  cudaError_t error = cudaStreamCreateWithFlags(&allocate_, cudaStreamNonBlocking);
  for (cudaStream_t& queue : queues_) {
    if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&queue, cudaStreamNonBlocking);
  }
  for (int mark = 0; mark < kNumMarks; ++mark) {
    if (error != cudaSuccess) break;
    const unsigned flags = mark < Staging::kNumMarks ? cudaEventBlockingSync : 0;
    error = cudaEventCreateWithFlags(&marks_[static_cast<size_t>(mark)],
                                     cudaEventDisableTiming | flags);
  }
  if (error != cudaSuccess) return Saying(error, "streams");
  uploads_ = std::make_unique<Staging>(*this, QueueKind::kUpload, 0, lane_bytes());
  return uploads_->refused() ? "it has no pinned memory for uploads" : "";
}

CudaDevice::~CudaDevice() {
  Use();
  uploads_.reset();
  for (cudaEvent_t mark : marks_) {
    if (mark != nullptr) cudaEventDestroy(mark);
  }
  for (cudaStream_t stream : queues_) {
    if (stream == nullptr) continue;
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
  }
  if (allocate_ != nullptr) cudaStreamDestroy(allocate_);
  if (pool_ != nullptr) cudaMemPoolDestroy(pool_);
}

void CudaDevice::Use() const { cudaSetDevice(index_); }

void CudaDevice::Note(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  const std::lock_guard lock(mutex_);
  if (wrong_.empty()) wrong_ = name_ + ": " + Saying(error, what);
}

void* CudaDevice::TakeMemory(Memory kind, int64_t bytes) {
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

void CudaDevice::GiveBack(Memory kind, void* memory) {
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
    Note(cudaFreeAsync(memory, QueueOf(QueueKind::kEngine)), "freeing device memory");
  } else {
    Note(cudaFree(memory), "freeing shared memory");
  }
}

bool CudaDevice::Reaches(const void* memory) const {
  const std::lock_guard lock(mutex_);
  return arrays_.Holds(memory);
}

int64_t CudaDevice::Upload(void* to, const void* from, int64_t bytes) {
  const StagedPiece piece{static_cast<char*>(to), bytes};
  return uploads_->Send(std::span(&piece, 1), static_cast<const char*>(from));
}

simt::Stream CudaDevice::stream(QueueKind queue) {
  Use();  // whoever asks is about to launch
  return {QueueOf(queue), queue == QueueKind::kEngine ? recording_ : nullptr};
}

void CudaDevice::Copy(QueueKind queue, void* to, const void* from, int64_t bytes) {
  Use();
  Note(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, QueueOf(queue)),
       "a copy");
}

void CudaDevice::Clear(QueueKind queue, void* to, int64_t bytes) {
  if (queue == QueueKind::kEngine && recording_ != nullptr) {
    recording_->AddClear(to, bytes);
    return;
  }
  Use();
  Note(cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), QueueOf(queue)), "zeros");
}

void CudaDevice::Mark(int mark, QueueKind queue) {
  Use();
  Note(cudaEventRecord(marks_[static_cast<size_t>(mark)], QueueOf(queue)), "a mark");
}

void CudaDevice::Await(int mark) {
  Use();
  Note(cudaEventSynchronize(marks_[static_cast<size_t>(mark)]), "the device");
}

void CudaDevice::Follow(QueueKind queue, int mark) {
  Use();
  Note(cudaStreamWaitEvent(QueueOf(queue), marks_[static_cast<size_t>(mark)], 0), "a mark");
}

std::unique_ptr<DeviceGraph> CudaDevice::MakeGraph(const simt::Recording& recording) {
  Use();
  Note(cudaGetLastError(), "a launch");  // before a refusal takes its place
  auto graph = std::make_unique<CudaGraph>(*this);
  return graph->Make(recording) ? std::move(graph) : nullptr;
}

void CudaDevice::Queue(const simt::Recording& recording) {
  for (const simt::Recording::Item& item : recording.items()) {
    if (item.kernel == nullptr) {
      Clear(QueueKind::kEngine, item.to, item.bytes);
      continue;
    }
    const RecordedArguments arguments(recording, item);
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(item.shape.blocks));
    config.blockDim = dim3(static_cast<unsigned>(item.shape.threads));
    config.dynamicSmemBytes = static_cast<size_t>(item.shape.shared_bytes);
    config.stream = QueueOf(QueueKind::kEngine);
    Note(cudaLaunchKernelExC(&config, item.kernel, arguments.pointers()), "a launch");
  }
}

std::string CudaDevice::Wait(QueueKind queue) {
  Use();
  const cudaStream_t own = QueueOf(queue);
  Note(cudaGetLastError(), "a launch");
  Note(cudaStreamSynchronize(own), "the device");
  const std::lock_guard lock(mutex_);
  return wrong_;
}

}  // namespace polyad::cuda
