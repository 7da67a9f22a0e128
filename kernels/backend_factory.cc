#include "kernels/backend_factory.h"

#include "absl/strings/str_format.h"
#include "kernels/cpu/cpu_backend.h"
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
  return absl::InvalidArgumentError(
      absl::StrFormat("backend: expected cpu or reference, got \"%s\"", name));
}

}  // namespace polyad
