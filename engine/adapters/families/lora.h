#pragma once

// LoRA and rsLoRA, as PEFT saves them: y += s B (A x), s = alpha / r, or alpha / sqrt(r) with
// use_rslora; r and alpha may differ by module (rank_pattern, alpha_pattern). Lowers to one LowRank
// per adapted linear site; a fused projection (GPT-2's c_attn) is one site. Source: zoo
// sections 4.1 and 5.1; peft 0.21.2, tuners/lora.

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapter_source.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"

namespace polyad {

StatusOr<AdapterProgram> LowerLora(AdapterSource& source, const ModelSpec& spec);

}  // namespace polyad
