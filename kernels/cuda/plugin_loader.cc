#include "kernels/cuda/plugin_loader.h"

#include <dlfcn.h>

#include <filesystem>
#include <string_view>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "kernels/cuda/loader_message.h"
#include "kernels/cuda/plugin_api.h"

namespace polyad::cuda {
namespace {

constexpr int64_t kMessageBytes = 512;
constexpr int32_t kMaxDevices = 1024;
constexpr int64_t kMaxGraphRows = 1024;

// Empty: not there.
std::string BesideTheProgram() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return "";
  const std::filesystem::path path = program.parent_path().parent_path() / "lib" / kPluginName;
  return std::filesystem::exists(path, error) ? path.string() : "";
}

// A PolyadCudaProducts, or -1.
int32_t ProductsOf(std::string_view name) {
  if (name == "own") return POLYAD_CUDA_PRODUCTS_OWN;
  if (name == "auto") return POLYAD_CUDA_PRODUCTS_AUTO;
  return name == "cublas" ? POLYAD_CUDA_PRODUCTS_CUBLAS : -1;
}

std::string PathOf(const BackendOptions& options) {
  std::string path = options.cuda_plugin;
  if (path.empty()) path = BesideTheProgram();
  return path.empty() ? kPluginName : path;
}

absl::StatusOr<PolyadCudaBackendOptions> OptionsOf(const BackendOptions& options) {
  const int32_t products = ProductsOf(options.cuda_products);
  if (products < 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "CUDA products: expected own, auto or cublas, got \"%s\"", options.cuda_products));
  }
  if (options.cuda_graph_rows < 0 || options.cuda_graph_rows > kMaxGraphRows) {
    return absl::InvalidArgumentError(absl::StrFormat("CUDA graph rows: expected 0 to %d, got %d",
                                                      kMaxGraphRows, options.cuda_graph_rows));
  }
  return PolyadCudaBackendOptions{static_cast<int32_t>(options.mode), options.cuda_device,
                                  options.cuda_memory_bytes, products, options.cuda_graph_rows};
}

// Why the program cannot use what it found; OK: it can.
absl::Status CheckVersion(const std::string& path, const PolyadCudaPlugin& functions) {
  if (functions.abi_version != POLYAD_CUDA_ABI_VERSION ||
      functions.struct_bytes != sizeof(PolyadCudaPlugin)) {
    return absl::FailedPreconditionError(
        absl::StrFormat("CUDA plugin %s: expected version %d of its interface, got %d", path,
                        POLYAD_CUDA_ABI_VERSION, functions.abi_version));
  }
  if (functions.build != std::string_view(POLYAD_PLUGIN_BUILD)) {
    return absl::FailedPreconditionError(
        absl::StrFormat("CUDA plugin %s: expected one of this build (%s), got %s", path,
                        POLYAD_PLUGIN_BUILD, functions.build));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaPlugin>> CudaPlugin::Open(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::NotFoundError(absl::StrFormat("CUDA plugin %s: %s", path, LoaderMessage()));
  }
  const auto entry = reinterpret_cast<PolyadCudaEntry>(dlsym(library, POLYAD_CUDA_ENTRY));
  if (entry == nullptr) {
    dlclose(library);
    return absl::FailedPreconditionError(
        absl::StrFormat("CUDA plugin %s: it has no %s", path, POLYAD_CUDA_ENTRY));
  }
  const PolyadCudaPlugin* functions = entry();
  const absl::Status status = CheckVersion(path, *functions);
  if (!status.ok()) {
    dlclose(library);
    return status;
  }
  return std::unique_ptr<CudaPlugin>(new CudaPlugin(library, functions));
}

CudaPlugin::~CudaPlugin() {
  if (!stays_open_) dlclose(library_);
}

absl::StatusOr<std::vector<CudaDeviceInfo>> CudaPlugin::Devices() const {
  char message[kMessageBytes] = {};
  int32_t count = 0;
  if (functions_->count_devices(&count, message, kMessageBytes) != 0) {
    return absl::UnavailableError(absl::StrFormat("CUDA: %s", message));
  }
  if (count < 1 || count > kMaxDevices) {
    return absl::UnavailableError(
        absl::StrFormat("CUDA: expected 1 to %d devices, got %d", kMaxDevices, count));
  }
  std::vector<CudaDeviceInfo> devices;
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

absl::Status CudaPlugin::CheckDevices(int first, int count) const {
  const absl::StatusOr<std::vector<CudaDeviceInfo>> devices = Devices();
  if (!devices.ok()) return devices.status();
  const auto found = static_cast<int>(devices->size());
  if (first < 0 || first >= found) {
    return absl::UnavailableError(
        absl::StrFormat("CUDA: expected a device of 0 to %d, got %d", found - 1, first));
  }
  if (count > found - first) {
    return absl::UnavailableError(
        absl::StrFormat("CUDA: expected %d devices for as many ranks, got %d from device %d on",
                        count, found - first, first));
  }
  for (int index = first; index < first + count; ++index) {
    const CudaDeviceInfo& device = (*devices)[static_cast<size_t>(index)];
    if (device.can_run) continue;
    return absl::UnavailableError(
        absl::StrFormat("CUDA device %d (%s): the plugin has no code for compute capability %d.%d",
                        index, device.name, device.compute_major, device.compute_minor));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Backend>> CudaPlugin::CreateBackend(const BackendOptions& options) {
  const absl::StatusOr<PolyadCudaBackendOptions> own = OptionsOf(options);
  if (!own.ok()) return own.status();
  const absl::Status status = CheckDevices(options.cuda_device, 1);
  if (!status.ok()) return status;
  char message[kMessageBytes] = {};
  void* backend = nullptr;
  if (functions_->create_backend(&*own, &backend, message, kMessageBytes) != 0) {
    const absl::StatusOr<std::vector<CudaDeviceInfo>> devices = Devices();
    return absl::UnavailableError(absl::StrFormat(
        "CUDA device %d (%s): %s", options.cuda_device,
        devices.ok() ? (*devices)[static_cast<size_t>(options.cuda_device)].name : "", message));
  }
  stays_open_ = true;
  return std::unique_ptr<Backend>(static_cast<Backend*>(backend));
}

absl::StatusOr<Ranks> CudaPlugin::CreateRanks(const BackendOptions& options) {
  const absl::StatusOr<PolyadCudaBackendOptions> own = OptionsOf(options);
  if (!own.ok()) return own.status();
  const absl::Status status = CheckDevices(options.cuda_device, options.num_ranks);
  if (!status.ok()) return status;
  char message[kMessageBytes] = {};
  std::vector<void*> backends(static_cast<size_t>(options.num_ranks));
  std::vector<void*> communicators(backends.size());
  if (functions_->create_ranks(&*own, options.num_ranks, backends.data(), communicators.data(),
                               message, kMessageBytes) != 0) {
    return absl::UnavailableError(
        absl::StrFormat("CUDA: %d ranks: %s", options.num_ranks, message));
  }
  stays_open_ = true;
  Ranks ranks;
  for (size_t i = 0; i < backends.size(); ++i) {
    ranks.backends.emplace_back(static_cast<Backend*>(backends[i]));
    ranks.communicators.emplace_back(static_cast<Communicator*>(communicators[i]));
  }
  return ranks;
}

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const BackendOptions& options) {
  absl::StatusOr<std::unique_ptr<CudaPlugin>> plugin = CudaPlugin::Open(PathOf(options));
  if (!plugin.ok()) return plugin.status();
  return (*plugin)->CreateBackend(options);
}

absl::StatusOr<Ranks> MakeCudaRanks(const BackendOptions& options) {
  absl::StatusOr<std::unique_ptr<CudaPlugin>> plugin = CudaPlugin::Open(PathOf(options));
  if (!plugin.ok()) return plugin.status();
  return (*plugin)->CreateRanks(options);
}

}  // namespace polyad::cuda
