#pragma once

// The door to calibration (engine/model/calibrate_planes.h): a compressed fine-tune and a text to
// fit it to. Loads both models by itself, in the exact mode; call it beside no engine that needs
// the memory. The backend is one of the exact mode.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/adapters/model_delta.h"
#include "engine/base/status.h"
#include "engine/model/calibrate_planes.h"
#include "kernels/api/backend.h"

namespace polyad {

// Cuts `tokens` into windows and rewrites the planes in `directory`.
StatusOr<CalibrateReport> CalibrateContainer(const std::string& directory,
                                             std::shared_ptr<const ModelDelta> models,
                                             Backend& backend, const std::vector<int32_t>& tokens,
                                             const CalibrateOptions& options);

}  // namespace polyad
