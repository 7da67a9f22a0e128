#pragma once

// A library of matrix products on the emulated device, for tests of what is asked of one and what
// becomes of its answers: a list of ways to multiply, each with the faults it is given. Sums are
// made in double precision, so that a way that keeps its promise is as near as fp32 can be.

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/cuda/plain_products.h"

namespace polyad::test {

struct FakeWay {
  int32_t splits = 1;
  uint32_t reduction = 0;
  int64_t most_rows = int64_t{1} << 30;     // that it runs for
  int64_t same_bits_to = int64_t{1} << 30;  // batches of more rows add up in another order
};

class FakeMatmuls final : public cuda::MatmulLibrary {
 public:
  explicit FakeMatmuls(std::vector<FakeWay> ways) : ways_(std::move(ways)), calls_(ways_.size()) {}

  std::string name() const override { return "fake 1.0"; }
  std::vector<cuda::MatmulAlgorithm> Candidates(const cuda::PlainShape& shape,
                                                int64_t rows) override;
  bool CanRun(const cuda::PlainShape& shape, const cuda::MatmulAlgorithm& algorithm,
              int64_t rows) override;
  std::string Multiply(const cuda::MatmulCall& call, const cuda::MatmulAlgorithm& algorithm,
                       simt::Stream stream) override;

  // Of each way so far.
  const std::vector<int64_t>& calls() const { return calls_; }
  // In calls, the most.
  int64_t rows() const { return rows_; }

 private:
  const std::vector<FakeWay> ways_;
  std::vector<int64_t> calls_;
  int64_t rows_ = 0;
};

// Products of a library, which `library` then points to.
std::unique_ptr<cuda::PlainProducts> FakeProducts(std::vector<FakeWay> ways, int64_t most_rows,
                                                  FakeMatmuls*& library);

}  // namespace polyad::test
