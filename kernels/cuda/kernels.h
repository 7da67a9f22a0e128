#pragma once

// Every kernel of the plugin and the host code that launches them, compiled as one source,
// kernels.cu, so that each kernel is there once.

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/api/backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/matmul_library.h"

namespace polyad::cuda {

// Whether every kernel can be loaded onto the calling thread's current device.
bool HasCodeForDevice();

// `library`, `why_own` and `graph_rows` as CudaBackend takes them.
std::unique_ptr<Backend> MakeBackendOn(std::unique_ptr<Device> device, ComputeMode mode,
                                       std::unique_ptr<MatmulLibrary> library, std::string why_own,
                                       int64_t graph_rows);

}  // namespace polyad::cuda
