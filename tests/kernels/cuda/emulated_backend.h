#pragma once

// The CUDA backend over the emulator, for tests of kernels and of whole models.

#include <memory>
#include <string>
#include <utility>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/simt/emulated_stream.h"
#include "tests/kernels/cuda/emulated_device.h"

namespace polyad::test {

class EmulatedBackend final : public cuda::CudaBackend {
 public:
  EmulatedBackend(ComputeMode mode, const simt::EmulatorOptions& options, bool guarded = false,
                  std::unique_ptr<cuda::PlainProducts> products = nullptr, int64_t graph_rows = 0)
      : CudaBackend(mode, std::make_unique<EmulatedDevice>(options, guarded), std::move(products),
                    "", graph_rows) {}

  const std::string& fault() { return emulated().fault(); }
  int64_t num_launches() { return emulated().num_launches(); }
  using CudaBackend::graph_counts;
  EmulatedDevice& emulated() { return static_cast<EmulatedDevice&>(device()); }
};

}  // namespace polyad::test
