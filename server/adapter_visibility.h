#pragma once

// Which adapters a tenant may know about. Any thread.

#include <string_view>
#include <vector>

#include "server/adapter_registry.h"

namespace polyad {

// Serving (not retired) adapters that `tenant` may use, by name.
std::vector<AdapterInfo> VisibleAdapters(const AdapterRegistry& registry, std::string_view tenant);

}  // namespace polyad
