#pragma once

// What K/V pages hold numbers as: floats, or small whole numbers with a scale and an offset for
// each group of a head's dimensions (kv_codes.h).

#include <cstdint>
#include <string_view>

namespace polyad {

// kAuto: f32 in mode f32, else bf16. The integer forms do not go with mode f32.
enum class KvFormat : uint8_t { kAuto, kF32, kBF16, kInt8, kInt4 };

constexpr std::string_view NameOf(KvFormat format) {
  switch (format) {
    case KvFormat::kAuto:
      return "auto";
    case KvFormat::kF32:
      return "f32";
    case KvFormat::kBF16:
      return "bf16";
    case KvFormat::kInt8:
      return "int8";
    case KvFormat::kInt4:
      return "int4";
  }
  return "?";
}

constexpr bool IsCoded(KvFormat format) {
  return format == KvFormat::kInt8 || format == KvFormat::kInt4;
}

}  // namespace polyad
