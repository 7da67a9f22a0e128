#pragma once

// NVIDIA's collective library, opened at run time by whoever wants more than one device: its C
// interface of version 2 (nccl.h), of which nothing is needed to build. Functions are NCCL's own
// and return 0 or one of its error codes.

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace polyad::cuda {

inline constexpr char kNcclName[] = "libnccl.so.2";
inline constexpr int kNcclFloat32 = 7;  // ncclDataType_t
inline constexpr int kNcclSum = 0;      // ncclRedOp_t

using NcclComm = struct OpaqueNcclComm*;

struct NcclFunctions {
  int (*comm_init_all)(NcclComm* comms, int num_devices, const int* devices) = nullptr;
  int (*comm_destroy)(NcclComm comm) = nullptr;
  int (*comm_get_async_error)(NcclComm comm, int* error) = nullptr;
  // Counts in numbers: of `from` where all are gathered. `stream`: a cudaStream_t.
  int (*all_reduce)(const void* from, void* to, size_t count, int type, int op, NcclComm comm,
                    void* stream) = nullptr;
  int (*all_gather)(const void* from, void* to, size_t count, int type, NcclComm comm,
                    void* stream) = nullptr;
  const char* (*get_error_string)(int error) = nullptr;
  const char* (*get_last_error)(NcclComm comm) = nullptr;  // of the process; comm: null
};

class NcclLibrary {
 public:
  // `path`: of the library, or its name for the system to look for. NOT_FOUND: it cannot be opened;
  // FAILED_PRECONDITION: a function is missing. Both say which and why.
  static absl::StatusOr<std::shared_ptr<const NcclLibrary>> Open(const std::string& path);
  ~NcclLibrary();
  NcclLibrary(const NcclLibrary&) = delete;
  NcclLibrary& operator=(const NcclLibrary&) = delete;

  const NcclFunctions& functions() const { return functions_; }
  // "NCCL: what: its words for the error: its last message"
  std::string Saying(const char* what, int error) const;

 private:
  explicit NcclLibrary(void* library) : library_(library) {}

  void* const library_;
  NcclFunctions functions_;
};

}  // namespace polyad::cuda
