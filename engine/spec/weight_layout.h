#pragma once

// Turns a stored matrix into [out, in] with half-split rotary pairs. A transpose needs elements of
// whole bytes; undoing the rotary interleave moves whole rows and so suits block types too.

#include "engine/base/status.h"
#include "engine/io/tensor_source.h"
#include "engine/spec/weight_names.h"

namespace polyad {

// The tensor's shape was checked against the entry.
StatusOr<OwnedTensor> ToLogicalLayout(OwnedTensor stored, const WeightEntry& entry);

}  // namespace polyad
