#pragma once

// A tiny model whose base and golden adapters decode beside each other, step after step, as those
// of a server do: for tests that compare bits of every logit. Test-only.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/engine/model/step_harness.h"

namespace polyad {

class Decoding {
 public:
  static constexpr int kSteps = 6;  // that decode
  static constexpr int64_t kMostSequences = 64;

  // A sequence of the base, the first, and one of each adapter.
  Decoding(const std::string& name, std::unique_ptr<Backend> backend);

  // Logits of the last tokens of `count` sequences that are prefilled together and then decoded
  // together; the first one's K/V is spilled and brought back on the way.
  std::vector<std::vector<float>> Run(size_t count);
  size_t num_sequences() const { return sequences_.size(); }

 private:
  void Add(std::vector<int32_t> tokens, std::shared_ptr<const AdapterVersion> adapter);

  TestModel test_;
  StepHarness harness_;
  std::vector<TestSequence> sequences_;
};

void ExpectSameBits(const std::vector<std::vector<float>>& got,
                    const std::vector<std::vector<float>>& want);

}  // namespace polyad
