#pragma once

// Sees what goes into every product of a step, in the order they run: how calibration learns what
// a model's matrices are fed. Called by the thread that runs the step; the rows are the decoder's
// own and change with its next product.

#include <cstdint>

#include "engine/adapters/adapter_version.h"
#include "kernels/api/tensor_view.h"

namespace polyad {

class InputObserver {
 public:
  virtual ~InputObserver() = default;
  // Rows [num_rows, in]. The head's layer is the number of layers, its rows those that sample.
  virtual void OnInput(int64_t layer, SiteGroup group, const ActivationRows& x) = 0;
};

}  // namespace polyad
