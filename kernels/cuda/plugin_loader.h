#pragma once

// Opens the CUDA plugin at run time, asks it for devices and has it make a Backend. The library
// stays open while the CudaPlugin lives, and for good once it has made a backend. Errors say which
// of the things needed is missing: NOT_FOUND the library (or one that it needs, by the system's
// words), FAILED_PRECONDITION one of another version or build or no plugin, UNAVAILABLE the driver,
// a device or what is needed of it (cuBLASLt, where it was asked for); INVALID_ARGUMENT a choice of
// products that is none. Any thread.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"
#include "kernels/api/ranks.h"

struct PolyadCudaPlugin;

namespace polyad::cuda {

inline constexpr char kPluginName[] = "polyad_cuda.so";

struct CudaDeviceInfo {
  std::string name;
  int compute_major = 0;
  int compute_minor = 0;
  int num_multiprocessors = 0;
  int64_t memory_bytes = 0;
  bool can_run = false;  // the plugin has code for it
};

class CudaPlugin {
 public:
  // `path`: of the library, or its name for the system to look for.
  static absl::StatusOr<std::unique_ptr<CudaPlugin>> Open(const std::string& path);
  ~CudaPlugin();
  CudaPlugin(const CudaPlugin&) = delete;
  CudaPlugin& operator=(const CudaPlugin&) = delete;

  // At least one, in the driver's order.
  absl::StatusOr<std::vector<CudaDeviceInfo>> Devices() const;
  // On options.cuda_device.
  absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const BackendOptions& options);
  // On the options.num_ranks devices from options.cuda_device on.
  absl::StatusOr<Ranks> CreateRanks(const BackendOptions& options);

 private:
  CudaPlugin(void* library, const PolyadCudaPlugin* functions)
      : library_(library), functions_(functions) {}
  // That they are there and that the plugin has code for them.
  absl::Status CheckDevices(int first, int count) const;

  void* const library_;
  const PolyadCudaPlugin* const functions_;
  bool stays_open_ = false;
};

// Of options.cuda_plugin, or else of kPluginName in ../lib of the program's own folder, or else
// where the system looks. An error says what was looked for.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const BackendOptions& options);
absl::StatusOr<Ranks> MakeCudaRanks(const BackendOptions& options);

}  // namespace polyad::cuda
