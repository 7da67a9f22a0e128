#pragma once

// What a family lowers to: the ops to add at each linear site of each layer, in order, in the terms
// of kernels/api alone. Ops borrow their tensors from the AdapterSource, which must outlive
// packing.

#include <optional>
#include <string>
#include <vector>

#include "engine/adapters/soft_prompt.h"
#include "engine/spec/sites.h"
#include "kernels/api/delta_op.h"

namespace polyad {

struct SiteOp {
  SiteRef site;
  DeltaOp op;
};

struct AdapterProgram {
  std::string family;  // as the family table calls it: "LORA"
  std::vector<SiteOp> ops;
  std::optional<SoftPromptTensors> soft_prompt;
  std::vector<int32_t> invocation_tokens;  // activated adapters only
};

}  // namespace polyad
