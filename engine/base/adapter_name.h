#pragma once

// What may be an adapter's name, an alias or a tenant: [A-Za-z0-9][A-Za-z0-9._-]{0,127}. The edge
// checks names before it does anything with them, the store again before it keeps one. And how a
// request names several adapters at once.

#include <algorithm>
#include <string>
#include <string_view>

namespace polyad {

inline constexpr size_t kMaxAdapterNameBytes = 128;

inline bool IsAdapterName(std::string_view name) {
  const auto is_alphanumeric = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  if (name.empty() || name.size() > kMaxAdapterNameBytes || !is_alphanumeric(name[0])) return false;
  return std::all_of(name.begin(), name.end(), [&](char c) {
    return is_alphanumeric(c) || c == '.' || c == '_' || c == '-';
  });
}

inline constexpr size_t kMaxAdapterUses = 8;  // in one composition
inline constexpr double kMaxAdapterScale = 100;

// One part of a composition: `scale` multiplies the adapter's change.
struct AdapterUse {
  std::string name;  // a name, an alias or name@version
  float scale = 1.0f;
};

}  // namespace polyad
