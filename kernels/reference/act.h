#pragma once

// The non-linearities in double precision, shared by Activate and the bottleneck op.

#include "kernels/api/activation.h"

namespace polyad::ref {

double Act(ActivationKind kind, double x);

}  // namespace polyad::ref
