#pragma once

// The CUDA backend of a GPU, for tests labelled `gpu`: they skip where the plugin (that of
// POLYAD_CUDA_PLUGIN, or else build/cuda's) or a device is missing, and fail there under
// POLYAD_NEEDS_GPU, which tools/gpu_report sets. Those over cuBLASLt skip where it is missing.

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "kernels/backend_factory.h"

namespace polyad::test {

inline absl::StatusOr<std::unique_ptr<Backend>> MakeGpuBackend(ComputeMode mode,
                                                               const std::string& products = "own",
                                                               int num_ranks = 1,
                                                               int64_t graph_rows = 64) {
  const char* told = std::getenv("POLYAD_CUDA_PLUGIN");
  BackendOptions options;
  options.mode = mode;
  options.cuda_products = products;
  options.num_ranks = num_ranks;
  options.cuda_graph_rows = graph_rows;
  options.cuda_plugin =
      told != nullptr ? told : std::string(POLYAD_SOURCE_DIR) + "/build/cuda/lib/polyad_cuda.so";
  return MakeBackend("cuda", options);
}

// Ends the test where there is no backend.
#define POLYAD_NEED_GPU(backend)                                                  \
  do {                                                                            \
    if ((backend).ok()) break;                                                    \
    if (std::getenv("POLYAD_NEEDS_GPU") != nullptr) FAIL() << (backend).status(); \
    GTEST_SKIP() << "no GPU: " << (backend).status();                             \
  } while (false)

// Ends the test where there is no backend with products of cuBLASLt. The library may be missing
// where a GPU is not, unless POLYAD_NEEDS_CUBLASLT says otherwise.
#define POLYAD_NEED_CUBLASLT(backend)                                                  \
  do {                                                                                 \
    if ((backend).ok()) break;                                                         \
    if (std::getenv("POLYAD_NEEDS_CUBLASLT") != nullptr) FAIL() << (backend).status(); \
    GTEST_SKIP() << "no GPU: or no cuBLASLt: " << (backend).status();                  \
  } while (false)

}  // namespace polyad::test
