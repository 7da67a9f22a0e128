#include "server/auth.h"

#include <ctime>

namespace polyad {
namespace {

constexpr size_t kMaxHeaderBytes = 1024;
constexpr std::string_view kSpace = " \t\r\n";

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

Digest HashOf(std::string_view text) {
  Sha256 sha;
  sha.Update(text);
  return sha.Finish();
}

// The key of "Bearer <key>"; empty where there is none.
std::string_view BearerKey(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size() || authorization.size() > kMaxHeaderBytes) return {};
  for (size_t i = 0; i < kScheme.size(); ++i) {
    const char c = authorization[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c) != kScheme[i]) return {};
  }
  return Trim(authorization.substr(kScheme.size()));
}

Status Unauthenticated() {
  return Status(absl::StatusCode::kUnauthenticated,
                std::string("authorization: expected 'Bearer <key>' with a known key, or a client "
                            "certificate of a known identity"));
}

Status Denied(const char* expected, const char* got) {
  return Status(absl::StatusCode::kPermissionDenied,
                absl::StrFormat("authorization: expected %s, got %s", expected, got));
}

StatusOr<std::optional<Digest>> TokenDigest(const char* what, std::string_view token,
                                            const TenantTable& tenants) {
  if (token.empty()) return std::optional<Digest>();
  if (Trim(token).empty()) return InvalidArgument("%s: expected a token, got none", what);
  const Digest digest = HashOf(Trim(token));
  if (tenants.FindByKey(digest) != nullptr) {
    return InvalidArgument("%s: expected a token of its own, got a tenant's key", what);
  }
  return std::optional<Digest>(digest);
}

// What a presented key or certificate is known as.
using Known = PeerOwner;

const char* TextOf(const Known& known) {
  return known.tenant != nullptr ? "a tenant's key"
         : known.admin           ? "the admin token"
                                 : "the metrics token";
}

// A header that is there decides, whatever it says: a revoked key does not fall back on who holds
// the connection.
Known Recognise(const CredentialTable& table, std::string_view authorization,
                const PeerIdentity* peer) {
  if (authorization.empty()) {
    if (peer == nullptr || peer->expires_unix_s <= static_cast<int64_t>(std::time(nullptr))) {
      return {};
    }
    return table.tenants.FindByNames(peer->names);
  }
  const std::string_view presented = BearerKey(authorization);
  if (presented.empty()) return {};
  const Digest digest = HashOf(presented);
  Known known;
  known.admin = table.admin.has_value() && EqualInConstantTime(*table.admin, digest);
  known.metrics = table.metrics.has_value() && EqualInConstantTime(*table.metrics, digest);
  known.tenant = table.tenants.FindByKey(digest);
  return known;
}

}  // namespace

StatusOr<CredentialTable> CredentialTable::Parse(std::string_view tenants_json,
                                                 std::string_view admin_token,
                                                 std::string_view metrics_token) {
  CredentialTable table;
  if (!tenants_json.empty()) {
    POLYAD_ASSIGN_OR_RETURN(table.tenants, TenantTable::Parse(tenants_json));
  }
  POLYAD_ASSIGN_OR_RETURN(table.admin, TokenDigest("admin-token-file", admin_token, table.tenants));
  POLYAD_ASSIGN_OR_RETURN(table.metrics,
                          TokenDigest("metrics-token-file", metrics_token, table.tenants));
  return table;
}

Credentials::Credentials(CredentialTable table)
    : table_(std::make_shared<const CredentialTable>(std::move(table))) {}

void Credentials::Replace(CredentialTable table) {
  auto next = std::make_shared<const CredentialTable>(std::move(table));
  std::lock_guard<std::mutex> lock(mutex_);
  table_.swap(next);
}

std::shared_ptr<const CredentialTable> Credentials::table() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return table_;
}

StatusOr<std::string> Credentials::Authorize(Access access, Reach reach,
                                             std::string_view authorization,
                                             const PeerIdentity* peer) const {
  const std::shared_ptr<const CredentialTable> table = this->table();
  const bool has_admin = table->admin.has_value() || table->tenants.has_admin_identities();
  const bool has_metrics = table->metrics.has_value() || table->tenants.has_metrics_identities();
  const bool is_open = access == Access::kPublic ||
                       (access == Access::kTenant && table->tenants.empty()) ||
                       (access == Access::kAdmin && !has_admin) ||
                       (access == Access::kMetrics && !has_admin && !has_metrics);
  if (is_open && access == Access::kAdmin && reach == Reach::kBeyond) {
    return Denied("a call from this machine, or an admin token (--admin-token-file)",
                  "a call to a listener beyond it, with none configured");
  }
  if (is_open) return std::string();
  const Known known = Recognise(*table, authorization, peer);
  if (known.count() == 0) return Unauthenticated();
  switch (access) {
    case Access::kTenant:
      if (known.tenant != nullptr) return *known.tenant;
      return Denied("a tenant's key", TextOf(known));
    case Access::kMetrics:
      if (known.metrics || known.admin) return std::string();
      return Denied("the metrics token or the admin token", TextOf(known));
    case Access::kAdmin:
      if (known.admin) return std::string();
      return Denied("the admin token", TextOf(known));
    case Access::kPublic:
      break;
  }
  return Internal("access: no such rule");
}

StatusOr<TenantLimits> Credentials::LimitsOf(std::string_view tenant) const {
  const std::shared_ptr<const CredentialTable> table = this->table();
  if (table->tenants.empty()) return TenantLimits{.max_priority = 100};
  const TenantLimits* limits = table->tenants.Find(tenant);
  if (limits == nullptr) return Unauthenticated();
  return *limits;
}

}  // namespace polyad
