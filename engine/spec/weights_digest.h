#pragma once

// What tells one set of weights from another: SHA-256 over every weight of a model in the order of
// its plan, as its file stores the elements and in the layout that the engine computes with. Names,
// shards and metadata do not enter, so a copy under another name is the same base; another
// precision is another one. Reads every weight once, one at a time.

#include "engine/base/digest.h"
#include "engine/base/status.h"
#include "engine/spec/model_files.h"

namespace polyad {

StatusOr<Digest> WeightsDigest(const ModelFiles& files);

}  // namespace polyad
