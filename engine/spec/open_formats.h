#pragma once

// The two containers behind OpenModel (model_files.h), one function each.

#include <string>

#include "engine/base/status.h"
#include "engine/spec/model_files.h"

namespace polyad {

StatusOr<ModelFiles> OpenHfDirectory(const std::string& directory);
StatusOr<ModelFiles> OpenGgufModel(const std::string& path);

}  // namespace polyad
