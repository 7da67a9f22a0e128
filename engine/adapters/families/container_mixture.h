#pragma once

// The container's ops of experts (docs/container.md): `mx` at a linear site makes each row's
// coefficients, and the site's `lr` ops with an option `expert` are multiplied by theirs.
// INVALID_ARGUMENT where numbers do not fit each other. Loader thread.

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/zoo_container.h"
#include "engine/base/status.h"
#include "engine/spec/sites.h"

namespace polyad {

Status LowerContainerMixture(const ContainerOp& op, SiteRef site, int64_t in,
                             AdapterProgram& program);

// Makes `delta`, whose op this is, an expert where the op says so. After the site's mixture.
Status JoinContainerMixture(const ContainerOp& op, const AdapterProgram& program, SiteOp& delta);

}  // namespace polyad
