// The CUDA plugin (plugin_api.h): devices, as the CUDA runtime tells of them, and the backend on
// one.

#include <cuda_runtime.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/api/check.h"
#include "kernels/cuda/cublaslt_library.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/nccl_communicator.h"
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

// Null: `wrong` says why.
std::unique_ptr<CudaDevice> OpenDevice(int index, int64_t memory_bytes, std::string& wrong) {
  std::unique_ptr<CudaDevice> device = CudaDevice::Create(index, memory_bytes, wrong);
  if (device == nullptr) return nullptr;
  // A backend takes an arena for each of its queues at once.
  void* arenas = device->Allocate(Memory::kDevice, 2 * device->arena_bytes());
  if (arenas == nullptr) {
    wrong =
        "it has no " + std::to_string(2 * device->arena_bytes()) + " bytes for what calls work in";
    return nullptr;
  }
  device->Free(Memory::kDevice, arenas);
  return device;
}

// Null: `wrong` says why.
std::unique_ptr<Backend> BackendOn(const PolyadCudaBackendOptions& options,
                                   std::unique_ptr<CudaDevice> device, std::string& wrong) {
  std::string why_own;
  std::unique_ptr<MatmulLibrary> library = LibraryOf(options, why_own);
  if (library == nullptr && options.products == POLYAD_CUDA_PRODUCTS_CUBLAS) {
    wrong = "products of cuBLASLt were asked for: " + why_own;
    return nullptr;
  }
  return MakeBackendOn(std::move(device), static_cast<ComputeMode>(options.mode),
                       std::move(library), why_own, options.graph_rows);
}

int32_t CreateBackend(const PolyadCudaBackendOptions* options, void** backend, char* message,
                      int64_t message_bytes) {
  std::string wrong;
  std::unique_ptr<CudaDevice> device = OpenDevice(options->device, options->memory_bytes, wrong);
  if (device == nullptr) return Refuse(wrong, message, message_bytes);
  std::unique_ptr<Backend> made = BackendOn(*options, std::move(device), wrong);
  if (made == nullptr) return Refuse(wrong, message, message_bytes);
  *backend = made.release();
  return 0;
}

// NCCL queues behind what is queued already, so nothing of a rank's may still be recorded.
void* QueueForNccl(CudaDevice& device) {
  const simt::Stream stream = device.stream(QueueKind::kEngine);
  KERNEL_CHECK(!simt::Records(stream), "a collective among launches that are recorded");
  return simt::QueueOf(stream);
}

// A step of ranks is queued launch by launch: between any two of its collectives there is too
// little for a graph.
int32_t CreateRanks(const PolyadCudaBackendOptions* options, int32_t count, void** backends,
                    void** communicators, char* message, int64_t message_bytes) {
  const auto library = NcclLibrary::Open(kNcclName);
  if (!library.ok()) {
    return Refuse(std::string(library.status().message()), message, message_bytes);
  }
  std::vector<std::unique_ptr<CudaDevice>> devices;
  std::vector<std::unique_ptr<Backend>> made;  // over the devices
  std::vector<NcclRank> ranks;
  for (int32_t i = 0; i < count; ++i) {
    std::string wrong;
    devices.push_back(OpenDevice(options->device + i, options->memory_bytes, wrong));
    if (devices.back() == nullptr) {
      return Refuse("device " + std::to_string(options->device + i) + ": " + wrong, message,
                    message_bytes);
    }
    CudaDevice* device = devices.back().get();  // its backend's, which outlives the communicator
    ranks.push_back({options->device + i, [device] { return QueueForNccl(*device); }});
  }
  auto group = MakeNcclGroup(*library, ranks);
  if (!group.ok()) return Refuse(std::string(group.status().message()), message, message_bytes);
  cudaGetLastError();  // what NCCL tried and did without is no fault of a launch
  PolyadCudaBackendOptions of_rank = *options;
  of_rank.graph_rows = 0;
  for (std::unique_ptr<CudaDevice>& device : devices) {
    std::string wrong;
    made.push_back(BackendOn(of_rank, std::move(device), wrong));
    if (made.back() == nullptr) return Refuse(wrong, message, message_bytes);
  }
  for (size_t i = 0; i < made.size(); ++i) {
    communicators[i] = (*group)[i].release();
    backends[i] = made[i].release();
  }
  return 0;
}

constexpr PolyadCudaPlugin kPlugin = {POLYAD_CUDA_ABI_VERSION,
                                      sizeof(PolyadCudaPlugin),
                                      POLYAD_PLUGIN_BUILD,
                                      CountDevices,
                                      DescribeDevice,
                                      CreateBackend,
                                      CreateRanks};

}  // namespace
}  // namespace polyad::cuda

extern "C" __attribute__((visibility("default"))) const PolyadCudaPlugin* polyad_cuda_plugin() {
  return &polyad::cuda::kPlugin;
}
