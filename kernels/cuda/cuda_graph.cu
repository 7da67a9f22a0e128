#include "kernels/cuda/cuda_graph.h"

namespace polyad::cuda {
namespace {

cudaKernelNodeParams KernelOf(const simt::Recording::Item& item,
                              const RecordedArguments& arguments) {
  cudaKernelNodeParams kernel = {};
  kernel.func = const_cast<void*>(item.kernel);
  kernel.gridDim = dim3(static_cast<unsigned>(item.shape.blocks));
  kernel.blockDim = dim3(static_cast<unsigned>(item.shape.threads));
  kernel.sharedMemBytes = static_cast<unsigned>(item.shape.shared_bytes);
  kernel.kernelParams = arguments.pointers();
  return kernel;
}

// By bytes, always: the size of an element is what an update cannot change.
cudaMemsetParams ClearOf(const simt::Recording::Item& item) {
  cudaMemsetParams clear = {};
  clear.dst = item.to;
  clear.elementSize = 1;
  clear.width = static_cast<size_t>(item.bytes);
  clear.height = 1;
  return clear;
}

// A refusal is the caller's to act on: it is no error of the device's.
bool Accepted(cudaError_t error) {
  if (error == cudaSuccess) return true;
  cudaGetLastError();
  return false;
}

}  // namespace

// The runtime frees one that still runs when it has run.
CudaGraph::~CudaGraph() {
  device_.Use();
  if (runs_ != nullptr) cudaGraphExecDestroy(runs_);
  if (graph_ != nullptr) cudaGraphDestroy(graph_);
}

bool CudaGraph::Make(const simt::Recording& recording) {
  if (!Accepted(cudaGraphCreate(&graph_, 0))) return false;
  for (const simt::Recording::Item& item : recording.items()) {
    cudaGraphNode_t node = nullptr;
    const cudaGraphNode_t* before = nodes_.empty() ? nullptr : &nodes_.back();
    const size_t num_before = nodes_.empty() ? 0 : 1;
    cudaError_t error = cudaSuccess;
    if (item.kernel == nullptr) {
      const cudaMemsetParams clear = ClearOf(item);
      error = cudaGraphAddMemsetNode(&node, graph_, before, num_before, &clear);
    } else {
      const RecordedArguments arguments(recording, item);
      const cudaKernelNodeParams kernel = KernelOf(item, arguments);
      error = cudaGraphAddKernelNode(&node, graph_, before, num_before, &kernel);
    }
    if (!Accepted(error)) return false;
    nodes_.push_back(node);
  }
  return Accepted(cudaGraphInstantiate(&runs_, graph_, 0));
}

bool CudaGraph::Update(const simt::Recording& to, std::span<const int32_t> changed) {
  device_.Use();
  for (const int32_t i : changed) {
    const simt::Recording::Item& item = to.items()[static_cast<size_t>(i)];
    const cudaGraphNode_t node = nodes_[static_cast<size_t>(i)];
    cudaError_t error = cudaSuccess;
    if (item.kernel == nullptr) {
      const cudaMemsetParams clear = ClearOf(item);
      error = cudaGraphExecMemsetNodeSetParams(runs_, node, &clear);
    } else {
      const RecordedArguments arguments(to, item);
      const cudaKernelNodeParams kernel = KernelOf(item, arguments);
      error = cudaGraphExecKernelNodeSetParams(runs_, node, &kernel);
    }
    if (!Accepted(error)) return false;
  }
  return true;
}

void CudaGraph::Launch() {
  device_.Use();
  device_.Note(cudaGraphLaunch(runs_, device_.QueueOf(QueueKind::kEngine)), "a graph");
}

}  // namespace polyad::cuda
