#pragma once

// A floating-point model directory in our own 8 or 4 bits (quantized_polyad.cc has the format):
// the layers' matrices become codes with an f16 scale, and in 4 bits a minimum, for each group of
// inputs; embeddings, head, norms and biases stay as they are; tokenizer files are copied. Tensor
// by tensor: no more than one is held. The result opens like any directory. One thread.
// INVALID_ARGUMENT: an option, or a weight that is not finite. UNIMPLEMENTED: a base this does not
// take. INTERNAL: the system refused a write.

#include <cstdint>
#include <functional>
#include <string>

#include "engine/base/status.h"

namespace polyad {

struct QuantizeOptions {
  std::string model;   // a Hugging Face directory
  std::string out;     // a directory that does not exist yet
  int bits = 4;        // 4 or 8
  int64_t group = 32;  // inputs a scale: a multiple of 16 that divides every matrix's inputs
};

struct QuantizeReport {
  int64_t num_matrices = 0;
  int64_t bytes_before = 0;  // of all tensors
  int64_t bytes_after = 0;
  double relative_error =
      0;  // root of (sum of squared differences / sum of squares), matrices only
};

using QuantizeProgress = std::function<void(int64_t done, int64_t total)>;  // tensors

StatusOr<QuantizeReport> QuantizeModel(const QuantizeOptions& options,
                                       const QuantizeProgress& progress);

}  // namespace polyad
