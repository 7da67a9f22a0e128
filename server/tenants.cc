#include "server/tenants.h"

#include <array>
#include <cmath>

#include "engine/base/adapter_name.h"
#include "engine/io/json.h"

namespace polyad {
namespace {

constexpr int64_t kMaxFileBytes = 4 << 20;
constexpr size_t kMaxTenants = 4096;
constexpr size_t kMaxKeys = 8192;
constexpr int64_t kMaxMiB = int64_t{1} << 20;
constexpr int64_t kMaxCount = int64_t{1} << 20;
constexpr int64_t kMaxTokens = int64_t{1} << 40;

struct Member {
  const char* name;
  int64_t TenantLimits::*field;
  int64_t min;
  int64_t max;
};
constexpr std::array<Member, 8> kMembers = {{
    {"max_requests", &TenantLimits::max_requests, 0, kMaxCount},
    {"max_queued", &TenantLimits::max_queued, 0, kMaxCount},
    {"tokens_per_second", &TenantLimits::tokens_per_second, 0, kMaxTokens},
    {"burst_tokens", &TenantLimits::burst_tokens, 0, kMaxTokens},
    {"max_sequences", &TenantLimits::max_sequences, 0, kMaxCount},
    {"max_kv_mib", &TenantLimits::max_kv_mib, 0, kMaxMiB},
    {"max_adapter_mib", &TenantLimits::max_adapter_mib, 0, kMaxMiB},
    {"max_priority", &TenantLimits::max_priority, -100, 100},
}};

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool ParseDigest(std::string_view hex, Digest& out) {
  if (hex.size() != out.size() * 2) return false;
  for (size_t i = 0; i < out.size(); ++i) {
    const int high = HexDigit(hex[2 * i]);
    const int low = HexDigit(hex[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<uint8_t>(high * 16 + low);
  }
  return true;
}

// A name is quoted whole where it may be one; anything else could be a key in the wrong place.
std::string Quotable(std::string_view name) {
  return IsAdapterName(name) && name.size() < 64 ? std::string(name) : "(not a name)";
}

Status CheckMembers(const JsonFields& fields, bool may_have_keys) {
  std::string known = may_have_keys ? "keys, weight" : "weight";
  for (const Member& member : kMembers) known += std::string(", ") + member.name;
  for (const auto& [key, value] : fields.object().items()) {
    bool found = key == "weight" || (may_have_keys && key == "keys");
    for (const Member& member : kMembers) found = found || key == member.name;
    if (found) continue;
    return InvalidArgument("%s: expected only %s, got '%s'", fields.where(), known, Quotable(key));
  }
  return absl::OkStatus();
}

// `limits` with what the object says.
Status ReadLimits(const JsonFields& fields, TenantLimits& limits) {
  constexpr double kUnit = kUnitWeight;
  POLYAD_ASSIGN_OR_RETURN(const double weight,
                          fields.NumberOr("weight", static_cast<double>(limits.weight) / kUnit,
                                          1 / kUnit, kMaxTenantWeight / kUnit));
  limits.weight = std::llround(weight * kUnit);
  for (const Member& member : kMembers) {
    POLYAD_ASSIGN_OR_RETURN(limits.*member.field, fields.IntOr(member.name, limits.*member.field,
                                                               member.min, member.max));
  }
  return absl::OkStatus();
}

}  // namespace

bool EqualInConstantTime(const Digest& a, const Digest& b) {
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned>(a[i] ^ b[i]);
  return difference == 0;
}

StatusOr<TenantTable> TenantTable::Parse(std::string_view json) {
  constexpr char kFile[] = "tenants file";
  POLYAD_ASSIGN_OR_RETURN(
      const Json root,
      ParseJson(json, kFile, {.max_bytes = kMaxFileBytes, .max_depth = 4, .max_values = 1 << 17}));
  POLYAD_ASSIGN_OR_RETURN(const JsonFields file, JsonFields::Of(root, kFile));
  for (const auto& [key, value] : root.items()) {
    if (key != "tenants" && key != "defaults") {
      return InvalidArgument("%s: expected only 'tenants' and 'defaults', got '%s'", kFile,
                             Quotable(key));
    }
  }
  TenantLimits defaults;
  POLYAD_ASSIGN_OR_RETURN(const auto given, file.Object("defaults"));
  if (given.has_value()) {
    POLYAD_RETURN_IF_ERROR(CheckMembers(*given, false));
    POLYAD_RETURN_IF_ERROR(ReadLimits(*given, defaults));
  }
  POLYAD_ASSIGN_OR_RETURN(const auto tenants, file.Object("tenants"));
  if (!tenants.has_value() || tenants->object().empty()) {
    return InvalidArgument("%s: key 'tenants': expected at least one tenant, got none", kFile);
  }
  if (tenants->object().size() > kMaxTenants) {
    return InvalidArgument("%s: expected at most %d tenants, got %d", kFile, kMaxTenants,
                           tenants->object().size());
  }
  TenantTable table;
  for (const auto& [name, value] : tenants->object().items()) {
    const std::string where = std::string(kFile) + ": tenant '" + Quotable(name) + "'";
    if (!IsAdapterName(name)) {
      return InvalidArgument("%s: expected a name of [A-Za-z0-9._-], 128 characters at most",
                             where);
    }
    POLYAD_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(value, where));
    POLYAD_RETURN_IF_ERROR(CheckMembers(fields, true));
    TenantLimits& limits = table.tenants_.emplace(name, defaults).first->second;
    POLYAD_RETURN_IF_ERROR(ReadLimits(fields, limits));
    POLYAD_ASSIGN_OR_RETURN(const auto keys, fields.StringsOr("keys", {}));
    POLYAD_RETURN_IF_ERROR(Annotate(table.AddKeys(name, keys), where));
  }
  return table;
}

Status TenantTable::AddKeys(const std::string& tenant, const std::vector<std::string>& digests) {
  const std::string& name = tenants_.find(tenant)->first;
  for (size_t i = 0; i < digests.size(); ++i) {
    Key key{&name, {}};
    if (!ParseDigest(digests[i], key.digest)) {
      return InvalidArgument("keys[%d]: expected the SHA-256 of a key, 64 hex digits, got %d bytes",
                             i, digests[i].size());
    }
    if (const std::string* owner = FindByKey(key.digest)) {
      return InvalidArgument("keys[%d]: expected a key of one tenant alone, got one of '%s'", i,
                             *owner);
    }
    if (keys_.size() == kMaxKeys) {
      return InvalidArgument("keys: expected at most %d in all, got more", kMaxKeys);
    }
    keys_.push_back(key);
  }
  return absl::OkStatus();
}

const std::string* TenantTable::FindByKey(const Digest& digest) const {
  const std::string* found = nullptr;
  for (const Key& key : keys_) {  // all of them, whichever matches
    if (EqualInConstantTime(key.digest, digest)) found = key.tenant;
  }
  return found;
}

const TenantLimits* TenantTable::Find(std::string_view name) const {
  const auto found = tenants_.find(name);
  return found == tenants_.end() ? nullptr : &found->second;
}

}  // namespace polyad
