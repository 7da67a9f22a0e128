#include "kernels/cuda/plugin_loader.h"

#include <dlfcn.h>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "kernels/cuda/plugin_api.h"

namespace polyad::cuda {
namespace {

constexpr int64_t kMessageBytes = 512;
constexpr int32_t kMaxDevices = 1024;

std::string LastSystemMessage() {
  const char* message = dlerror();
  return message == nullptr ? "no reason given" : message;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaPlugin>> CudaPlugin::Open(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::NotFoundError(absl::StrFormat("CUDA plugin %s: %s", path, LastSystemMessage()));
  }
  const auto entry = reinterpret_cast<PolyadCudaEntry>(dlsym(library, POLYAD_CUDA_ENTRY));
  if (entry == nullptr) {
    dlclose(library);
    return absl::FailedPreconditionError(
        absl::StrFormat("CUDA plugin %s: it has no %s", path, POLYAD_CUDA_ENTRY));
  }
  const PolyadCudaPlugin* functions = entry();
  if (functions->abi_version != POLYAD_CUDA_ABI_VERSION ||
      functions->struct_bytes != sizeof(PolyadCudaPlugin)) {
    const uint32_t version = functions->abi_version;
    dlclose(library);
    return absl::FailedPreconditionError(
        absl::StrFormat("CUDA plugin %s: expected version %d of its interface, got %d", path,
                        POLYAD_CUDA_ABI_VERSION, version));
  }
  return std::unique_ptr<CudaPlugin>(new CudaPlugin(library, functions));
}

CudaPlugin::~CudaPlugin() { dlclose(library_); }

absl::StatusOr<std::vector<CudaDevice>> CudaPlugin::Devices() const {
  char message[kMessageBytes] = {};
  int32_t count = 0;
  if (functions_->count_devices(&count, message, kMessageBytes) != 0) {
    return absl::UnavailableError(absl::StrFormat("CUDA: %s", message));
  }
  if (count < 1 || count > kMaxDevices) {
    return absl::UnavailableError(
        absl::StrFormat("CUDA: expected 1 to %d devices, got %d", kMaxDevices, count));
  }
  std::vector<CudaDevice> devices;
  for (int32_t i = 0; i < count; ++i) {
    PolyadCudaDevice device = {};
    if (functions_->describe_device(i, &device, message, kMessageBytes) != 0) {
      return absl::UnavailableError(absl::StrFormat("CUDA device %d: %s", i, message));
    }
    device.name[sizeof(device.name) - 1] = '\0';
    devices.push_back({device.name, device.major, device.minor, device.num_multiprocessors,
                       device.memory_bytes, device.can_run != 0});
  }
  return devices;
}

}  // namespace polyad::cuda
