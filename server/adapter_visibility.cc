#include "server/adapter_visibility.h"

#include <algorithm>

namespace polyad {

std::vector<AdapterInfo> VisibleAdapters(const AdapterRegistry& registry, std::string_view tenant) {
  std::vector<AdapterInfo> adapters = registry.List();
  std::erase_if(adapters, [&](const AdapterInfo& adapter) {
    const std::vector<std::string>& allowed = adapter.allowed_tenants;
    return adapter.retired || adapter.kept ||
           (!allowed.empty() && std::find(allowed.begin(), allowed.end(), tenant) == allowed.end());
  });
  return adapters;
}

}  // namespace polyad
