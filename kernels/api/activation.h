#pragma once

// The non-linearities of base models and of bottleneck adapters, by the names Hugging Face gives
// them. silu is also called swish; gelu_new is GeluTanh.

#include <cstdint>

namespace polyad {

enum class ActivationKind : uint8_t {
  kSilu,
  kGeluTanh,
  kGeluErf,
  kRelu,
  kTanh,
  kQuickGelu,  // x sigmoid(1.702 x)
  kLeakyRelu,  // slope 0.01 below zero
  kSigmoid,
  kIdentity,
};

}  // namespace polyad
