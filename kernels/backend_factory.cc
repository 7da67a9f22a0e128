#include "kernels/backend_factory.h"

#include "absl/strings/str_format.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/plugin_loader.h"
#include "kernels/reference/reference_backend.h"

namespace polyad {

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(std::string_view name,
                                                     const BackendOptions& options) {
  if (options.num_threads < 0 || options.num_threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrFormat("threads: expected 0 to %d, got %d", kMaxThreads, options.num_threads));
  }
  if (name == "reference") return std::make_unique<ref::ReferenceBackend>(options.mode);
  if (name == "cpu") return cpu::CpuBackend::Create(options);
  if (name != "cuda" && name != "auto") {
    return absl::InvalidArgumentError(
        absl::StrFormat("backend: expected cpu, reference, cuda or auto, got \"%s\"", name));
  }
  absl::StatusOr<std::unique_ptr<Backend>> cuda = cuda::MakeCudaBackend(options);
  if (cuda.ok() || name == "cuda") return cuda;
  if (options.on_fallback) options.on_fallback(std::string(cuda.status().message()));
  return cpu::CpuBackend::Create(options);
}

}  // namespace polyad
