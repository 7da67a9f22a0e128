#pragma once

// A prompt's final hidden states on their way to one vector: added up in the order of the prompt,
// in double, so that chunks, preemptions and batch mates change no bit. Owned by the request,
// engine thread only.

#include <cstdint>
#include <vector>

#include "engine/base/status.h"
#include "engine/request/sampling_params.h"
#include "kernels/api/tensor_view.h"

namespace polyad {

class HiddenPool {
 public:
  // The next rows of the prompt, [n, hidden]; none changes nothing.
  void Add(FloatRows rows);
  int64_t num_rows() const { return num_rows_; }

  // The mean of what was added (of one row: that row), its first `dimensions`, then their direction
  // where it is to be normalised: x / max(|x|, 1e-12), as torch's normalize. INTERNAL where a value
  // is not finite.
  StatusOr<std::vector<float>> Finish(const EmbeddingParams& params) const;

 private:
  std::vector<double> sums_;  // [hidden]
  int64_t num_rows_ = 0;
};

}  // namespace polyad
