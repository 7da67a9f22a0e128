#pragma once

// Chooses signs and scales for what a change of weights does on a text in place of what it is:
//   minimise the sum over rows of (d - p)' H (d - p),  H = X' X / n + a little of the identity,
// d a row of the change D, p of the planes. Signs flip one at a time where that lowers the sum,
// scales are solved for in between. With one plane and H = 1 nothing moves: signs of D and mean |D|
// are the best there are. The identity's share keeps what the text says nothing about near D. One
// thread, and the backend's own; the exact mode.

#include "engine/adapters/dense_math.h"
#include "engine/adapters/sign_planes.h"
#include "engine/base/status.h"
#include "kernels/api/backend.h"

namespace polyad {

struct RefineOptions {
  int rounds = 3;           // of flips and scales
  double identity = 0.01;   // of the mean of H's diagonal
  bool keep_signs = false;  // scales alone
};

// Changes `planes`, which were fitted to D [out, in]; gram is X' X / n [in, in].
Status RefinePlanes(const Matrix& change, Matrix gram, const RefineOptions& options,
                    Backend& backend, SignPlanes& planes);

// Sum over rows of (d - p)' G (d - p), against that of d: what the planes miss of the outputs.
struct OutputError {
  double squared_error = 0;
  double squares = 0;
};
StatusOr<OutputError> OutputErrorOf(const Matrix& change, const Matrix& gram, Backend& backend,
                                    const SignPlanes& planes);

}  // namespace polyad
