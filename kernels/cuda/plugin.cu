// The CUDA plugin (plugin_api.h): devices, as the CUDA runtime tells of them.

#include <cuda_runtime.h>

#include <cstdio>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/plugin_api.h"

namespace polyad::cuda {
namespace {

int32_t Report(cudaError_t error, const char* what, char* message, int64_t message_bytes) {
  if (error == cudaSuccess) return 0;
  std::snprintf(message, static_cast<size_t>(message_bytes), "%s: %s", what,
                cudaGetErrorString(error));
  return 1;
}

int32_t CountDevices(int32_t* count, char* message, int64_t message_bytes) {
  int found = 0;
  const cudaError_t error = cudaGetDeviceCount(&found);
  *count = found;
  return Report(error, "no device can be used", message, message_bytes);
}

int32_t DescribeDevice(int32_t index, PolyadCudaDevice* device, char* message,
                       int64_t message_bytes) {
  cudaDeviceProp properties = {};
  cudaError_t error = cudaGetDeviceProperties(&properties, index);
  if (error == cudaSuccess) error = cudaSetDevice(index);
  if (error != cudaSuccess) return Report(error, "properties", message, message_bytes);
  std::snprintf(device->name, sizeof(device->name), "%s", properties.name);
  device->major = properties.major;
  device->minor = properties.minor;
  device->num_multiprocessors = properties.multiProcessorCount;
  device->memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  device->can_run = HasCodeForDevice() ? 1 : 0;
  return 0;
}

constexpr PolyadCudaPlugin kPlugin = {POLYAD_CUDA_ABI_VERSION, sizeof(PolyadCudaPlugin),
                                      CountDevices, DescribeDevice};

}  // namespace
}  // namespace polyad::cuda

extern "C" __attribute__((visibility("default"))) const PolyadCudaPlugin* polyad_cuda_plugin() {
  return &polyad::cuda::kPlugin;
}
