#pragma once

// From a lowered program to a version ready to run: every op packed by the backend and put where
// the decoder looks for it. Loader thread.

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapter_version.h"
#include "engine/adapters/program_costs.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"
#include "kernels/api/backend.h"

namespace polyad {

// Which of a layer's groups a linear site belongs to; the embedding has none (CHECK).
SiteGroup GroupOf(Site site);

// Fills `version`, and returns what each part of the program costs. INVALID_ARGUMENT where an op
// does not fit its site or its stage, RESOURCE_EXHAUSTED when memory is refused.
StatusOr<ProgramCosts> PackProgram(const AdapterProgram& program, const ModelSpec& spec,
                                   Backend& backend, AdapterVersion& version);

}  // namespace polyad
