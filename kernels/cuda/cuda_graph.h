#pragma once

// A DeviceGraph over the CUDA runtime: the recording's kernels and clears as nodes, each after the
// one before it. nvcc only.

#include <cuda_runtime.h>

#include <array>
#include <span>
#include <vector>

#include "kernels/cuda/cuda_device.h"

namespace polyad::cuda {

// As the runtime takes a launch's arguments.
class RecordedArguments {
 public:
  RecordedArguments(const simt::Recording& recording, const simt::Recording::Item& item) {
    for (int i = 0; i < item.num_arguments; ++i) {
      pointers_[static_cast<size_t>(i)] = const_cast<void*>(recording.Argument(item, i));
    }
  }
  void** pointers() const { return const_cast<void**>(pointers_.data()); }

 private:
  std::array<void*, simt::Recording::kMaxArguments> pointers_ = {};
};

class CudaGraph final : public DeviceGraph {
 public:
  explicit CudaGraph(CudaDevice& device) : device_(device) {}
  ~CudaGraph() override;
  // False: the runtime refused it.
  bool Make(const simt::Recording& recording);
  bool Update(const simt::Recording& to, std::span<const int32_t> changed) override;
  void Launch() override;

 private:
  CudaDevice& device_;
  cudaGraph_t graph_ = nullptr;  // whose nodes name those of the other
  cudaGraphExec_t runs_ = nullptr;
  std::vector<cudaGraphNode_t> nodes_;  // by item
};

}  // namespace polyad::cuda
