#pragma once

// The coefficients that a request's own rows make (SegmentGate in adapter_program.h, KeyGates in
// soft_prompt.h), and what they multiply. Few numbers of few adapters, so plain code on rows in
// memory: sixteen running sums that are added up in order, then the rows in order, so that the bits
// depend on the rows alone.

#include <span>

#include "engine/adapters/adapter_program.h"
#include "kernels/api/tensor_view.h"

namespace polyad {

// The mean over rows t of sigmoid(weight . x[t] + bias) (UniPELT: Mao et al. 2022). At least one
// row; weight is [cols of x].
float MeanGate(std::span<const float> weight, float bias, ActivationRows x);

// A router's sub-layer output o, in place, from its normed input n (TokenRouter in
// adapter_program.h). As many rows of both.
void RouteRows(const TokenRouter& router, ActivationRows n, FloatRows o);

// scores = sigmoid(scores + bias), bias [cols of scores]
void Sigmoid(std::span<const float> bias, FloatRows scores);

// rows *= factor
void ScaleBy(float factor, FloatRows rows);

}  // namespace polyad
