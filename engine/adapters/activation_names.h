#pragma once

// Non-linearities by the names that adapters' configurations give them, and what each computes, for
// lowerings that evaluate a small network while loading. Names are those of transformers 4 and 5
// (activations.py) and AdapterHub's. Pure functions, loader threads.

#include <string>

#include "engine/base/status.h"
#include "kernels/api/activation.h"

namespace polyad {

// UNIMPLEMENTED naming `where` ("adapter_config.json: act_fn") for one we do not have.
StatusOr<ActivationKind> ActivationNamed(const std::string& name, const std::string& where);

double Activate(ActivationKind activation, double x);

}  // namespace polyad
