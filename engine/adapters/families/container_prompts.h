#pragma once

// The container's soft prompts (docs/container.md): `ep`, embeddings before the text, one of
// several by option "task"; `kv`, one layer's keys and values before the text, or with `gate`
// beside it in a softmax of their own, or with `gate_w` times gates of each token's own. They carry
// TPT (prompts after the projector), APT (a prefix with fixed gates multiplied in, or with such)
// and LLaMA-Adapters with a gate for each head. Source: zoo sections 5.7 and 6.

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/lowering_context.h"
#include "engine/adapters/zoo_container.h"
#include "engine/base/status.h"

namespace polyad {

// `op` is an "ep" at the embedding or a "kv" at an attention.
Status LowerContainerPrompt(const ContainerOp& op, const LoweringContext& context,
                            AdapterProgram& program);

}  // namespace polyad
