#pragma once

// JSON strings within a schema's bounds: length in characters, a pattern found in them, a format
// by its name. A format is an expression of ours that is a subset of what its standard allows
// (no 29 February and no leap seconds).

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/constraint/json_values.h"

namespace polyad {

struct StringBounds {
  int64_t min_length = 0;
  int64_t max_length = -1;  // -1: any
  std::optional<std::string> pattern;
  std::optional<std::string> format;
};

// Null where the format is not one we serve; `FormatNames` lists those we do.
const char* PatternOfFormat(std::string_view format);
std::string FormatNames();

// The whole string, quotes too.
StatusOr<NodeId> EmitString(JsonValues& values, NodeId from, const StringBounds& bounds);

}  // namespace polyad
