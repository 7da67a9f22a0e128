#pragma once

// What a base is without serving it: its shape, what tells its weights from others, and what they
// would occupy. Reads every weight, and holds one packed layer at a time. Any thread.

#include <string>

#include "engine/base/digest.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"
#include "engine/spec/weight_bytes.h"
#include "kernels/api/backend.h"

namespace polyad {

struct BaseReport {
  ModelSpec spec;
  Digest weights_sha256{};  // engine/spec/weights_digest.h
  WeightBytes bytes;        // as `backend` packs them
};

// Errors are those of loading the model.
StatusOr<BaseReport> InspectBase(const std::string& path, Backend& backend);

}  // namespace polyad
