#include "kernels/cuda/nccl_library.h"

#include <dlfcn.h>

#include "absl/strings/str_format.h"
#include "kernels/cuda/loader_message.h"

namespace polyad::cuda {
namespace {

template <typename Function>
absl::Status Find(void* library, const std::string& path, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
  if (function != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrFormat("NCCL %s: it has no %s", path, name));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const NcclLibrary>> NcclLibrary::Open(const std::string& path) {
  // It stays for good: a group that it could not make may have left threads behind.
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) {
    return absl::NotFoundError(absl::StrFormat("NCCL %s: %s", path, LoaderMessage()));
  }
  const std::shared_ptr<NcclLibrary> library(new NcclLibrary(handle));
  NcclFunctions& functions = library->functions_;
  for (const absl::Status& status :
       {Find(handle, path, "ncclCommInitAll", functions.comm_init_all),
        Find(handle, path, "ncclCommDestroy", functions.comm_destroy),
        Find(handle, path, "ncclCommGetAsyncError", functions.comm_get_async_error),
        Find(handle, path, "ncclAllReduce", functions.all_reduce),
        Find(handle, path, "ncclAllGather", functions.all_gather),
        Find(handle, path, "ncclGetErrorString", functions.get_error_string),
        Find(handle, path, "ncclGetLastError", functions.get_last_error)}) {
    if (!status.ok()) return status;
  }
  return std::shared_ptr<const NcclLibrary>(library);
}

NcclLibrary::~NcclLibrary() { dlclose(library_); }

std::string NcclLibrary::Saying(const char* what, int error) const {
  const char* last = functions_.get_last_error(nullptr);
  return absl::StrFormat("NCCL: %s: %s%s%s", what, functions_.get_error_string(error),
                         last == nullptr || *last == '\0' ? "" : ": ", last == nullptr ? "" : last);
}

}  // namespace polyad::cuda
