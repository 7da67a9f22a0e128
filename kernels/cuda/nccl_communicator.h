#pragma once

// A tensor-parallel group over NCCL: one process, a device and a thread for each rank. Calls are
// queued on the rank's stream, behind the launches that make what is sent (which are queued by
// then, not recorded) and before those that read what comes. A call that NCCL refuses, or an error
// that it met since the last one, ends the process with its words: other ranks would wait for this
// one for ever.

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/communicator.h"
#include "kernels/cuda/nccl_library.h"

namespace polyad::cuda {

struct NcclRank {
  int device = 0;                 // in the driver's order
  std::function<void*()> stream;  // a cudaStream_t, whose device it makes the thread's own
};

// One for each, in order. UNAVAILABLE: NCCL cannot make them; it says why.
absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> MakeNcclGroup(
    const std::shared_ptr<const NcclLibrary>& library, std::span<const NcclRank> ranks);

}  // namespace polyad::cuda
