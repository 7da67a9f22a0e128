#pragma once

// What every family's file starts from. A family is one function: it takes the tensors it
// understands from the source and returns the ops they lower to. INVALID_ARGUMENT: malformed;
// FAILED_PRECONDITION: made for another base; UNIMPLEMENTED: a known variant that is not served.
// families.inc names the function; nothing else refers to it.

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapter_source.h"
#include "engine/adapters/lowering_context.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"
#include "engine/spec/sites.h"
