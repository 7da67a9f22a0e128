#pragma once

// K/V's part of the memory that it shares with adapters (engine/base/memory_ledger.h), at the
// beginning of a step, before anything is planned: pages that adapters ask for are given up, the
// coldest first, what they held is spilled and their memory goes back to the system; then pages are
// taken for what runs and waits, and where none is free, adapters that nobody uses are asked for
// theirs. The plan then counts on what is there. Engine thread only.

#include "engine/model/step_runner.h"
#include "engine/runtime/engine_state.h"

namespace polyad {

// Does nothing where K/V has memory of its own.
void ShareMemory(EngineState& state, StepRunner& runner, int64_t now_us);

}  // namespace polyad
