#include "server/tenants.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_join.h"
#include "engine/base/adapter_name.h"
#include "engine/io/json.h"
#include "server/config.h"
#include "server/tls/peer_identity.h"

namespace polyad {
namespace {

constexpr char kFile[] = "tenants file";
constexpr int64_t kMaxFileBytes = 4 << 20;
constexpr size_t kMaxTenants = 4096;
constexpr size_t kMaxKeys = 8192;
constexpr size_t kMaxIdentities = 8192;
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

// A member's name is quoted where it may be one that was mistyped.
std::string Misspelt(const std::string& name, std::vector<std::string> known) {
  known.insert(known.end(), {"keys", "identities"});  // which stand in another place
  const std::string nearest = NearestName(name, known);
  const bool is_like = !nearest.empty() && name.size() <= nearest.size() + 3;
  return is_like ? "'" + name + "'" : "another (hidden)";
}

Status CheckMembers(const JsonFields& fields, bool may_have_keys) {
  std::vector<std::string> known = {"weight"};
  if (may_have_keys) known.insert(known.begin(), {"keys", "identities"});
  for (const Member& member : kMembers) known.emplace_back(member.name);
  for (const auto& [key, value] : fields.object().items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    return InvalidArgument("%s: expected only %s, got %s", fields.where(),
                           absl::StrJoin(known, ", "), Misspelt(key, known));
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

// One tenant as the file has it.
struct Entry {
  std::string where;  // for messages
  TenantLimits limits;
  std::vector<std::string> keys;
  std::vector<std::string> identities;
};

StatusOr<Entry> ReadTenant(const std::string& name, const Json& value,
                           const TenantLimits& defaults) {
  Entry entry;
  entry.where = std::string(kFile) + ": tenant '" + Quotable(name) + "'";
  entry.limits = defaults;
  if (!IsAdapterName(name)) {
    return InvalidArgument("%s: expected a name of [A-Za-z0-9._-], 128 characters at most",
                           entry.where);
  }
  POLYAD_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(value, entry.where));
  POLYAD_RETURN_IF_ERROR(CheckMembers(fields, true));
  POLYAD_RETURN_IF_ERROR(ReadLimits(fields, entry.limits));
  POLYAD_ASSIGN_OR_RETURN(entry.keys, fields.StringsOr("keys", {}));
  POLYAD_ASSIGN_OR_RETURN(entry.identities, fields.StringsOr("identities", {}));
  return entry;
}

// What the JSON reader quotes: '...' behind one of these, quotes within escaped, or a number at the
// end, behind the last.
constexpr std::string_view kQuotes[] = {"duplicate key '", "near '", "the string '"};
constexpr std::string_view kNumber = ", got ";
constexpr char kDigits[] = "-+.0123456789eE";

// `message` without the values that it quotes: any of them may be a key in the wrong place.
std::string WithoutValues(std::string message) {
  for (const std::string_view before : kQuotes) {
    for (size_t at = message.find(before); at != message.npos; at = message.find(before, at)) {
      at += before.size() - 1;
      const size_t end = std::min(message.find('\'', at + 1), message.size() - 1);
      message.replace(at, end + 1 - at, "(hidden)");
    }
  }
  const size_t got = message.rfind(kNumber);
  const size_t number = got == message.npos ? message.npos : got + kNumber.size();
  if (number < message.size() && message.find_first_not_of(kDigits, number) == message.npos) {
    message.replace(number, message.npos, "another number");
  }
  return message;
}

}  // namespace

bool EqualInConstantTime(const Digest& a, const Digest& b) {
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned>(a[i] ^ b[i]);
  return difference == 0;
}

StatusOr<TenantTable> TenantTable::Parse(std::string_view json) {
  StatusOr<TenantTable> table = ParseFile(json);
  if (!table.ok())
    return Status(table.status().code(), WithoutValues(std::string(table.status().message())));
  return table;
}

StatusOr<TenantTable> TenantTable::ParseFile(std::string_view json) {
  constexpr char kAdmins[] = "admin_identities";
  constexpr char kScrapers[] = "metrics_identities";
  POLYAD_ASSIGN_OR_RETURN(
      const Json root,
      ParseJson(json, kFile, {.max_bytes = kMaxFileBytes, .max_depth = 4, .max_values = 1 << 17}));
  POLYAD_ASSIGN_OR_RETURN(const JsonFields file, JsonFields::Of(root, kFile));
  for (const auto& [key, value] : root.items()) {
    if (key != "tenants" && key != "defaults" && key != kAdmins && key != kScrapers) {
      return InvalidArgument("%s: expected only 'tenants', 'defaults', '%s' and '%s', got %s",
                             kFile, kAdmins, kScrapers,
                             Misspelt(key, {"tenants", "defaults", kAdmins, kScrapers}));
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
    POLYAD_ASSIGN_OR_RETURN(const Entry entry, ReadTenant(name, value, defaults));
    const std::string& kept = table.tenants_.emplace(name, entry.limits).first->first;
    POLYAD_RETURN_IF_ERROR(Annotate(table.AddKeys(name, entry.keys), entry.where));
    POLYAD_RETURN_IF_ERROR(Annotate(
        table.AddIdentities("identities", Role::kTenant, &kept, entry.identities), entry.where));
  }
  POLYAD_ASSIGN_OR_RETURN(const auto admins, file.StringsOr(kAdmins, {}));
  POLYAD_RETURN_IF_ERROR(
      Annotate(table.AddIdentities(kAdmins, Role::kAdmin, nullptr, admins), kFile));
  POLYAD_ASSIGN_OR_RETURN(const auto scrapers, file.StringsOr(kScrapers, {}));
  POLYAD_RETURN_IF_ERROR(
      Annotate(table.AddIdentities(kScrapers, Role::kMetrics, nullptr, scrapers), kFile));
  table.has_admin_ = !admins.empty();
  table.has_metrics_ = !scrapers.empty();
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
                             Quotable(*owner));
    }
    if (keys_.size() == kMaxKeys) {
      return InvalidArgument("keys: expected at most %d in all, got more", kMaxKeys);
    }
    keys_.push_back(key);
  }
  return absl::OkStatus();
}

Status TenantTable::AddIdentities(const char* member, Role role, const std::string* tenant,
                                  const std::vector<std::string>& identities) {
  for (size_t i = 0; i < identities.size(); ++i) {
    const StatusOr<Digest> digest = IdentityDigest(identities[i]);
    if (!digest.ok()) return Annotate(digest.status(), absl::StrFormat("%s[%d]", member, i));
    if (FindByNames({*digest}).count() > 0) {
      return InvalidArgument("%s[%d]: expected an identity of one owner alone, got it twice",
                             member, i);
    }
    if (identities_.size() == kMaxIdentities) {
      return InvalidArgument("%s: expected at most %d in all, got more", member, kMaxIdentities);
    }
    identities_.push_back({role, tenant, *digest});
  }
  return absl::OkStatus();
}

PeerOwner TenantTable::FindByNames(const std::vector<Digest>& names) const {
  PeerOwner owner;
  bool several = false;
  for (const Digest& name : names) {
    for (const Identity& identity : identities_) {  // all of them, whichever matches
      if (!EqualInConstantTime(identity.digest, name)) continue;
      several = several || (owner.tenant != nullptr && owner.tenant != identity.tenant);
      if (identity.role == Role::kTenant) owner.tenant = identity.tenant;
      owner.admin = owner.admin || identity.role == Role::kAdmin;
      owner.metrics = owner.metrics || identity.role == Role::kMetrics;
    }
  }
  return several || owner.count() > 1 ? PeerOwner{} : owner;
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
