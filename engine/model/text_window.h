#pragma once

// Runs a window of text through a model as one prompt, beside the engine: calibration and nothing
// else. It takes the model's K/V pages from the first on, so nothing else may use the model
// meanwhile. Windows are at most the model's step long. One thread.

#include <cstdint>
#include <span>

#include "engine/adapters/adapter_version.h"
#include "engine/base/status.h"
#include "engine/model/model.h"

namespace polyad {

inline constexpr int64_t kWindowTokens = 512;

// The logits of every row, valid until the next run. `adapter` may be null.
StatusOr<FloatRows> RunWindow(Model& model, std::span<const int32_t> tokens,
                              const AdapterVersion* adapter);

}  // namespace polyad
