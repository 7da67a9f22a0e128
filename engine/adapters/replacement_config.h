#pragma once

// What a PEFT configuration says of the parts of the base that its file replaces, held against the
// tensors that are there: `bias` ("none", "all", "<type>_only") and `modules_to_save`. PEFT writes
// every bias and every module that these name and the base has, so a file without them is not what
// was trained; a bias that the configuration denies was not trained with it either. A name that no
// module of the base ends with says nothing, as in PEFT. Loader thread, before the lowering.
// Source: peft 0.21.2, _get_learnable_bias_state_dict and _set_trainable; zoo section 4.1.

#include "engine/adapters/adapter_source.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"

namespace polyad {

// UNIMPLEMENTED: another `bias`; INVALID_ARGUMENT: the first tensor that is missing or denied, by
// name, or `modules_to_save` that is no list of strings.
Status CheckReplacementConfig(const AdapterSource& source, const ModelSpec& spec);

}  // namespace polyad
