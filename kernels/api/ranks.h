#pragma once

// The ranks of a tensor-parallel group: each one's backend, and what it says to the others, which
// goes first.

#include <memory>
#include <vector>

#include "kernels/api/backend.h"
#include "kernels/api/communicator.h"

namespace polyad {

struct Ranks {
  std::vector<std::unique_ptr<Backend>> backends;
  std::vector<std::unique_ptr<Communicator>> communicators;  // of the same ranks
};

}  // namespace polyad
