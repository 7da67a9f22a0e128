#pragma once

// What PEFT's prompt-learning families write into adapter_config.json alike: the number of virtual
// tokens, and sizes of the base that the tensors repeat. Source: zoo section 3; peft 0.21.2,
// config.py.

#include <cstdint>
#include <span>
#include <string_view>

#include "engine/base/status.h"
#include "engine/io/json.h"

namespace polyad {

inline constexpr int64_t kMaxPromptTokens = int64_t{1} << 20;

// The number of virtual tokens. UNIMPLEMENTED where a key outside the common ones and `own_keys` is
// set, or modules are replaced as well.
StatusOr<int64_t> ReadPromptConfig(const OrderedJsonFields& config,
                                   std::span<const std::string_view> own_keys);

}  // namespace polyad
