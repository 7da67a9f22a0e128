#pragma once

// The end of a step: what was computed becomes state. Advances every sequence, makes its full
// blocks findable, appends the sampled token, decides whether it ends, and writes the events. A
// sequence whose sampling failed ends with its request; FailStep is the end of a step whose run
// failed.

#include <vector>

#include "engine/runtime/engine_state.h"
#include "engine/runtime/sample_step.h"
#include "engine/runtime/step_batch.h"

namespace polyad {

// What precedes the run: expirations end, preempted sequences give up their blocks, admitted ones
// take theirs.
void ApplyPlan(const StepPlan& plan, EngineState& state, int64_t now_us);

void Commit(const FlatStep& flat, std::vector<SampledItem> sampled, EngineState& state,
            EngineObserver* observer, int64_t now_us);

void FailStep(const StepPlan& plan, const Status& status, EngineState& state, int64_t now_us);

}  // namespace polyad
