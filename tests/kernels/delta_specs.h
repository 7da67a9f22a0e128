#pragma once

// One list of adapters' ops at awkward shapes, for the tests that hold for every op: conformance
// (delta_cases.h), and a row's bits whatever else is in the call (delta_invariance_test.cc). A spec
// makes its op from DeltaTensors, which owns what the op views.

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernels/api/delta_op.h"
#include "tests/kernels/stored_weight.h"

namespace polyad::test {

// Tensors for one op: bf16 numbers, the same ones for the same calls in the same order.
class DeltaTensors {
 public:
  // With magnitudes: absolute values of the same numbers, so that the op made of them gives the sum
  // of its terms' sizes.
  explicit DeltaTensors(bool magnitudes) : magnitudes_(magnitudes) {}

  bool magnitudes() const { return magnitudes_; }
  TensorView Matrix(DType dtype, int64_t rows, int64_t cols, float deviation = 1.0f);
  std::span<const float> Vector(int64_t size, float deviation = 1.0f);
  std::span<const uint32_t> Words(int64_t size);  // all ones where magnitudes
  std::span<const float> Keep(std::vector<float> values);
  std::span<const int32_t> Indices(std::vector<int32_t> values);
  // Of [0, end), ascending: each with the given chance.
  std::span<const int32_t> Subset(int64_t end, double chance);
  std::span<const int32_t> Permutation(int64_t size);

 private:
  std::vector<float> Values(int64_t size, float deviation);

  bool magnitudes_;
  uint32_t seed_ = 200;
  std::deque<StoredWeight> matrices_;
  std::deque<std::vector<float>> vectors_;
  std::deque<std::vector<uint32_t>> words_;
  std::deque<std::vector<int32_t>> indices_;
};

// Where a backend is asked for the op.
enum class DeltaStage { kApply, kInput, kOutput, kEmbedding };

struct DeltaSpec {
  std::string name;
  DeltaStage stage = DeltaStage::kApply;
  std::function<DeltaOp(DeltaTensors&)> make;
  // In auto mode, roundings to bf16 (of half a unit each) between the input row and the sum.
  double roundings = 0;
  // A norm of weights and biases up to 3 comes first; magnitudes are of the op without it, on rows
  // that it may give.
  bool norms_input = false;
};

std::vector<DeltaSpec> DeltaSpecs();

// The widths of an op's rows: what it reads (or changes, at kInput) and what it changes.
struct DeltaWidths {
  int64_t in = 1;
  int64_t out = 1;
};
DeltaWidths WidthsOf(const DeltaSpec& spec);

}  // namespace polyad::test
