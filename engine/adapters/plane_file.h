#pragma once

// The planes of signs in a container on disk, to be changed and written back: what calibration
// works on. Other tensors of the file are copied as they are. One thread. DATA_LOSS or
// INVALID_ARGUMENT: no container of planes; INTERNAL: the system refused a write.

#include <cstdint>
#include <string>
#include <vector>

#include "engine/adapters/sign_planes.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"
#include "engine/spec/sites.h"

namespace polyad {

struct SitePlanes {
  SiteRef site;
  SignPlanes planes;
};

// Every site with `sg` ops, layer by layer in the order that sites run.
StatusOr<std::vector<SitePlanes>> ReadPlanes(const std::string& directory, const ModelSpec& spec);
// Puts these in the place of the file's, shape for shape.
Status WritePlanes(const std::string& directory, const std::vector<SitePlanes>& sites);

}  // namespace polyad
