#pragma once

// Between plan and run: what the step's new blocks held is saved before it is overwritten, and what
// admissions found spilled is copied into theirs. Both are copies of bits, so a sequence that goes
// on from restored blocks computes what it would have computed. Engine thread only.

#include "engine/base/clock.h"
#include "engine/model/step_runner.h"
#include "engine/runtime/engine_state.h"

namespace polyad {

// Copies what was evicted since the last call to the spill, where there is one.
void SaveEvicted(EngineState& state, const StepRunner& runner);

// A request whose blocks cannot be read back ends with UNAVAILABLE; its sequences are gone then.
void SwapBlocks(EngineState& state, StepRunner& runner, Clock& clock);

}  // namespace polyad
