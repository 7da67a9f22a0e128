#pragma once

// A library of matrix products that may take the place of the project's own kernels where a base's
// weights are bf16 numbers: what is asked of one, and nothing of its types. cublaslt_library.h is
// such a library; tests have others. What it must promise is up to plain_products.h to find out.

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/simt/simt.h"

namespace polyad::cuda {

// Weights [out, in] of bf16 numbers, row by row; both are multiples of kPlainElements.
inline constexpr int64_t kPlainElements = 16;
struct PlainShape {
  int64_t out = 0;
  int64_t in = 0;
  friend auto operator<=>(const PlainShape&, const PlainShape&) = default;
};

// One of a library's ways to multiply by weights of one shape.
struct MatmulAlgorithm {
  std::array<uint64_t, 8> words = {};  // the library's own description
  int32_t splits = 1;                  // parts of a sum that are made apart
  uint32_t reduction = 0;              // how they are put together; 0: in no way
};

// y[t] = W x[t], or += it. Device memory throughout, aligned to 16 bytes, rows a multiple of 16
// bytes apart.
struct MatmulCall {
  PlainShape shape;
  const simt::Bf16* weight = nullptr;
  const simt::Bf16* x = nullptr;
  int64_t x_stride = 0;  // elements
  float* y = nullptr;
  int64_t y_stride = 0;
  int64_t rows = 0;
  bool accumulate = false;
};

// Any thread, with the device current.
class MatmulLibrary {
 public:
  virtual ~MatmulLibrary() = default;
  virtual std::string name() const = 0;  // and version
  // That need no memory to work in, for `rows` rows; the fastest first, by the library's reckoning,
  // which is the same in every process on a device of that kind.
  virtual std::vector<MatmulAlgorithm> Candidates(const PlainShape& shape, int64_t rows) = 0;
  // Whether it runs for so many rows, with no memory to work in.
  virtual bool CanRun(const PlainShape& shape, const MatmulAlgorithm& algorithm, int64_t rows) = 0;
  // Queued at once: not where launches are recorded. -> what went wrong; empty: nothing
  virtual std::string Multiply(const MatmulCall& call, const MatmulAlgorithm& algorithm,
                               simt::Stream stream) = 0;
};

}  // namespace polyad::cuda
