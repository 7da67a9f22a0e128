#include "engine/adapters/adapter_traffic.h"

#include <cstring>

#include "engine/base/digest.h"

namespace polyad {
namespace {

double FractionOf(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }

}  // namespace

std::string KeptKey(std::string_view name, int64_t version) {
  return std::string(name) + "@" + std::to_string(version);
}

double DrawOfSession(std::string_view name, std::string_view tenant, std::string_view session) {
  Sha256 sha;
  for (const std::string_view part : {name, tenant, session}) {
    sha.UpdateInt(static_cast<int64_t>(part.size()));
    sha.Update(part);
  }
  const Digest digest = sha.Finish();
  uint64_t bits = 0;
  std::memcpy(&bits, digest.data(), sizeof(bits));
  return FractionOf(bits);
}

double DrawOfCount(uint64_t count) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;  // 2^64 over the golden ratio
  return FractionOf(count * kGolden);
}

}  // namespace polyad
