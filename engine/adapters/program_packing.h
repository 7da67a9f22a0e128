#pragma once

// From a lowered program to a version ready to run: every op packed by the backend and put where
// the decoder looks for it. Loader thread.

#include <vector>

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapter_version.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"
#include "kernels/api/backend.h"

namespace polyad {

// Which of a layer's groups a linear site belongs to; the embedding has none (CHECK).
SiteGroup GroupOf(Site site);

// Fills `version`, and returns what each op costs: site ops, embedding ops, hooks,
// ops of the stream. INVALID_ARGUMENT
// where an op does not fit its site or its stage, RESOURCE_EXHAUSTED when memory is refused.
StatusOr<std::vector<DeltaCost>> PackProgram(const AdapterProgram& program, const ModelSpec& spec,
                                             Backend& backend, AdapterVersion& version);

}  // namespace polyad
