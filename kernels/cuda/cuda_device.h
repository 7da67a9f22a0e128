#pragma once

// A Device over the CUDA runtime. Device memory comes from a pool of the driver's that keeps what
// it once took, so that packing an adapter does not wait for the engine's launches; shared memory
// is managed, at home on the device, and moves to the host by pages when the host reads it. nvcc
// only.

#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "kernels/cuda/device.h"
#include "kernels/cuda/device_arrays.h"
#include "kernels/cuda/staging.h"

namespace polyad::cuda {

class CudaDevice final : public Device {
 public:
  // Device `index` of the driver's, of whose memory at most `memory_bytes` are taken (0: all there
  // is). Null where it cannot be used; `wrong` says why.
  static std::unique_ptr<CudaDevice> Create(int index, int64_t memory_bytes, std::string& wrong);
  ~CudaDevice() override;

  std::string name() const override { return name_; }
  bool Reaches(const void* memory) const override;
  int64_t Upload(void* to, const void* from, int64_t bytes) override;
  void AwaitUpload(int64_t upload) override { uploads_->Await(upload); }
  simt::Stream stream(QueueKind queue) override;
  void Copy(QueueKind queue, void* to, const void* from, int64_t bytes) override;
  void Clear(QueueKind queue, void* to, int64_t bytes) override;
  std::string Wait(QueueKind queue) override;
  void Mark(int mark, QueueKind queue) override;
  void Await(int mark) override;
  void Follow(QueueKind queue, int mark) override;
  std::unique_ptr<DeviceGraph> MakeGraph(const simt::Recording& recording) override;
  void Queue(const simt::Recording& recording) override;

 protected:
  void* TakeMemory(Memory kind, int64_t bytes) override;
  void GiveBack(Memory kind, void* memory) override;
  void RecordInto(simt::Recording* to) override { recording_ = to; }

 private:
  friend class CudaGraph;
  explicit CudaDevice(int index) : index_(index) {}
  std::string Open(int64_t memory_bytes);  // -> what went wrong
  std::string OpenQueues();
  void Use() const;  // the device, on the calling thread
  void Note(cudaError_t error, const char* what);
  void* AllocateOnDevice(int64_t bytes);
  void* AllocateShared(int64_t bytes);
  cudaStream_t& QueueOf(QueueKind queue) { return queues_[static_cast<size_t>(queue)]; }

  const int index_;
  std::string name_;
  int64_t most_bytes_ = 0;
  cudaMemPool_t pool_ = nullptr;
  std::array<cudaStream_t, kNumQueues> queues_ = {};
  cudaStream_t allocate_ = nullptr;
  std::array<cudaEvent_t, kNumMarks> marks_ = {};
  std::unique_ptr<Staging> uploads_;
  simt::Recording* recording_ = nullptr;  // the engine thread's
  mutable std::mutex mutex_;              // guards what follows
  DeviceArrays arrays_;
  int64_t used_bytes_ = 0;
  std::string wrong_;  // what went wrong first
};

}  // namespace polyad::cuda
