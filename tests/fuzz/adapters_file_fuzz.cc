// Any bytes as the file of --adapters-from: what is accepted keeps to its limits and names nothing
// twice.

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "engine/base/adapter_name.h"
#include "engine/base/check.h"
#include "engine/base/digest.h"
#include "server/adapters_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file =
      polyad::ParseAdaptersFile(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!file.ok()) {
    POLYAD_CHECK(!file.status().message().empty(), "a refusal says why");
    return 0;
  }
  POLYAD_CHECK(file->adapters.size() <= polyad::kMaxDeclaredAdapters, "adapters");
  POLYAD_CHECK(file->absent.size() <= polyad::kMaxDeclaredAdapters, "absent names");
  std::set<std::string> seen;
  const auto take = [&seen](const std::string& name) {
    POLYAD_CHECK(polyad::IsAdapterName(name), "a name");
    POLYAD_CHECK(seen.insert(name).second, "no name twice");
  };
  for (const polyad::DeclaredAdapter& adapter : file->adapters) {
    take(adapter.request.name());
    POLYAD_CHECK(adapter.aliases.size() <= polyad::kMaxDeclaredAliases, "aliases");
    for (const std::string& alias : adapter.aliases) take(alias);
    POLYAD_CHECK(polyad::DigestFromHex(adapter.digest).has_value(), "a digest");
    POLYAD_CHECK(!adapter.request.replace() && !adapter.request.has_share(), "a state, no call");
  }
  for (const std::string& name : file->absent) take(name);
  return 0;
}
