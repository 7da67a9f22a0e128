#pragma once

// A plan made flat: the device-ready arrays of one step. Sequences are sorted by adapter (the base
// model first, then by version id) so that each adapter is one segment (those that read
// whole prompts: one for each sequence), within by what they turn by, and then by age; a sequence's
// rows stay together. Pure function.

#include <vector>

#include "engine/model/step_batch.h"
#include "engine/runtime/engine_state.h"
#include "engine/runtime/scheduler.h"

namespace polyad {

struct FlatStep {
  struct Item {
    Sequence* sequence = nullptr;
    StepPlan::Work work;
    // Range of batch.sample_rows (of hidden_rows, where the sequence embeds); row i is of position
    // first_sampled + (i - sample_begin).
    int64_t sample_begin = 0;
    int64_t sample_end = 0;
    int64_t first_sampled = 0;
  };
  StepBatch batch;
  std::vector<Item> items;  // as batch.sequences, and those without rows
};

FlatStep Flatten(const StepPlan& plan, EngineState& state);

}  // namespace polyad
