#pragma once

// What a base is without serving it: its shape, and what tells its weights from others. Reads every
// weight, one at a time. Any thread.

#include <string>

#include "engine/base/digest.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"

namespace polyad {

struct BaseReport {
  ModelSpec spec;
  Digest weights_sha256{};  // engine/spec/weights_digest.h
};

// Errors are those of loading the model.
StatusOr<BaseReport> InspectBase(const std::string& path);

}  // namespace polyad
