#pragma once

// Opens the CUDA plugin at run time and asks it for devices. It stays open while the CudaPlugin
// lives. Errors say which of the things needed is missing: NOT_FOUND the library (or one that it
// needs, by the system's words), FAILED_PRECONDITION one of another version or no plugin,
// UNAVAILABLE the driver or a device. Any thread.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

struct PolyadCudaPlugin;

namespace polyad::cuda {

struct CudaDevice {
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
  absl::StatusOr<std::vector<CudaDevice>> Devices() const;

 private:
  CudaPlugin(void* library, const PolyadCudaPlugin* functions)
      : library_(library), functions_(functions) {}

  void* const library_;
  const PolyadCudaPlugin* const functions_;
};

}  // namespace polyad::cuda
