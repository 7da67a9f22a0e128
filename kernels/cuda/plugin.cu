// The CUDA plugin (plugin_api.h): devices, as the CUDA runtime tells of them, and the backend on
// one.

#include <cuda_runtime.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "kernels/cuda/cublaslt_library.h"
#include "kernels/cuda/cuda_device.h"
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

int32_t Refuse(const std::string& why, char* message, int64_t message_bytes) {
  std::snprintf(message, static_cast<size_t>(message_bytes), "%s", why.c_str());
  return 1;
}

// Null where own kernels multiply; `why_own` says why, where that was not asked for.
std::unique_ptr<MatmulLibrary> LibraryOf(const PolyadCudaBackendOptions& options,
                                         std::string& why_own) {
  if (options.products == POLYAD_CUDA_PRODUCTS_OWN) return nullptr;
  if (static_cast<ComputeMode>(options.mode) == ComputeMode::kF32) {
    why_own = "cuBLASLt is for bf16, and fp32 was asked for";
    return nullptr;
  }
  return CublasLtLibrary::Open(cublaslt::kLibraryName, why_own);
}

int32_t CreateBackend(const PolyadCudaBackendOptions* options, void** backend, char* message,
                      int64_t message_bytes) {
  std::string wrong;
  std::unique_ptr<CudaDevice> device =
      CudaDevice::Create(options->device, options->memory_bytes, wrong);
  if (device == nullptr) return Refuse(wrong, message, message_bytes);
  // A backend takes an arena for each of its queues at once.
  void* arenas = device->Allocate(Memory::kDevice, 2 * device->arena_bytes());
  if (arenas == nullptr) {
    return Refuse(
        "it has no " + std::to_string(2 * device->arena_bytes()) + " bytes for what calls work in",
        message, message_bytes);
  }
  device->Free(Memory::kDevice, arenas);
  std::string why_own;
  std::unique_ptr<MatmulLibrary> library = LibraryOf(*options, why_own);
  if (library == nullptr && options->products == POLYAD_CUDA_PRODUCTS_CUBLAS) {
    return Refuse("products of cuBLASLt were asked for: " + why_own, message, message_bytes);
  }
  *backend = MakeBackendOn(std::move(device), static_cast<ComputeMode>(options->mode),
                           std::move(library), why_own)
                 .release();
  return 0;
}

constexpr PolyadCudaPlugin kPlugin = {POLYAD_CUDA_ABI_VERSION, sizeof(PolyadCudaPlugin),
                                      POLYAD_PLUGIN_BUILD,     CountDevices,
                                      DescribeDevice,          CreateBackend};

}  // namespace
}  // namespace polyad::cuda

extern "C" __attribute__((visibility("default"))) const PolyadCudaPlugin* polyad_cuda_plugin() {
  return &polyad::cuda::kPlugin;
}
