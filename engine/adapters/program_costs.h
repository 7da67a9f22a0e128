#pragma once

// What each part of a program costs once packed, in the program's order: the load report shows
// them, and their sum is what the adapter holds and what the store counts against its budget. A
// part's gates, norms and biases are its own. A plain value.

#include <vector>

#include "kernels/api/delta_op.h"

namespace polyad {

struct ProgramCosts {
  std::vector<DeltaCost> mixtures;  // of the scores; experts are ops
  std::vector<DeltaCost> ops;
  std::vector<DeltaCost> embedding_ops;
  std::vector<DeltaCost> routers;
  std::vector<DeltaCost> hooks;
  std::vector<DeltaCost> stream_ops;
  std::vector<DeltaCost> couplings;
  std::vector<DeltaCost> gated_prefixes;
  std::vector<DeltaCost> norms;
  DeltaCost soft_prompt;
  DeltaCost scaling_pass;
  DeltaCost rope;

  DeltaCost Sum() const {
    DeltaCost sum = soft_prompt;
    sum += scaling_pass;
    sum += rope;
    for (const auto* parts : {&mixtures, &ops, &embedding_ops, &routers, &hooks, &stream_ops,
                              &couplings, &gated_prefixes, &norms}) {
      for (const DeltaCost& cost : *parts) sum += cost;
    }
    return sum;
  }
};

}  // namespace polyad
