#pragma once

// Which algorithm of a library multiplies by weights of which shape, so that a row's bits depend on
// the row alone (kernels/api/backend.h). For each shape one algorithm, for any number of rows: the
// first of the library's that makes no sum in parts, takes every number of rows from 1 to
// kMostRows, and gives rows of seeded numbers the same bits alone and in batches, tried on the
// device with the first weight of that shape. Where none does, weights of the shape stay with the
// project's own kernels, and Describe says why. Choose: one thread at a time; the rest any thread.

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "kernels/cuda/device.h"
#include "kernels/cuda/matmul_library.h"

namespace polyad::cuda {

class PlainProducts {
 public:
  // Rows of one call of the library; more are several calls. So all numbers of rows that occur can
  // be asked about.
  static constexpr int64_t kMostRows = 512;
  // The library chooses for so many: between a step that decodes and a chunk of a prompt.
  static constexpr int64_t kChosenForRows = 64;

  explicit PlainProducts(std::unique_ptr<MatmulLibrary> library, int64_t most_rows = kMostRows)
      : library_(std::move(library)), most_rows_(most_rows) {}

  // Whether weights of the shape are known to have no algorithm.
  bool IsRefused(const PlainShape& shape) const;
  // For weights of the shape, of which `weight` (on the device) is one; nothing: none will do.
  // Tries on the loader's queue, with memory that it gives back.
  std::optional<MatmulAlgorithm> Choose(const PlainShape& shape, const simt::Bf16* weight,
                                        Device& device);
  // Any number of rows. CHECKs that the library queues them, and that nothing is recorded.
  void Multiply(MatmulCall call, const MatmulAlgorithm& algorithm, simt::Stream stream) const;
  int64_t most_rows() const { return most_rows_; }
  // "cuBLASLt 13.1.0 for 3 of 4 weight shapes; own kernels for [50272, 768]: ..."
  std::string Describe() const;

 private:
  struct Choice {
    std::optional<MatmulAlgorithm> algorithm;
    std::string why_not;
  };
  Choice Find(const PlainShape& shape, const simt::Bf16* weight, Device& device) const;

  const std::unique_ptr<MatmulLibrary> library_;
  const int64_t most_rows_;
  mutable std::mutex mutex_;  // guards choices_
  std::map<PlainShape, Choice> choices_;
};

}  // namespace polyad::cuda
