#pragma once

// The rotary embedding that an adapter brings: a config.json beside its files, as a fine-tune with
// another context has it (LongLoRA: Chen et al. 2023; rope_scaling in the configuration, the rest
// in the LoRA), says rope_theta, rope_scaling or rope_parameters, max_position_embeddings. Where it
// says nothing of them, or what the base does anyway, the base's tables serve. The shapes it names
// must be the base's; of its other keys none is read. Loader thread.

#include <optional>

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapter_source.h"
#include "engine/adapters/lowering_context.h"
#include "engine/base/status.h"

namespace polyad {

// FAILED_PRECONDITION where the file is of another base, INVALID_ARGUMENT and UNIMPLEMENTED as for
// a model's own config.json.
StatusOr<std::optional<OwnRope>> ReadOwnRope(const AdapterSource& source,
                                             const LoweringContext& context);

}  // namespace polyad
