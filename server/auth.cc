#include "server/auth.h"

#include <algorithm>

#include "engine/base/adapter_name.h"
#include "engine/io/file.h"
#include "server/field_error.h"

namespace polyad {
namespace {

constexpr int64_t kMaxKeyFileBytes = 1 << 20;
constexpr size_t kMaxKeys = 4096;
constexpr size_t kMaxTokenBytes = 1024;
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

bool EqualInConstantTime(const Digest& a, const Digest& b) {
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned>(a[i] ^ b[i]);
  return difference == 0;
}

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

// The key of "Bearer <key>"; empty where there is none.
std::string_view BearerKey(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size() || authorization.size() > kMaxTokenBytes) return {};
  for (size_t i = 0; i < kScheme.size(); ++i) {
    const char c = authorization[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c) != kScheme[i]) return {};
  }
  return Trim(authorization.substr(kScheme.size()));
}

Status Unauthenticated() {
  return Status(absl::StatusCode::kUnauthenticated,
                std::string("authorization: expected 'Bearer <key>' with a known key"));
}

}  // namespace

StatusOr<Credentials> Credentials::Load(const std::string& api_keys_file,
                                        const std::string& admin_token_file) {
  std::string keys;
  std::string token;
  if (!api_keys_file.empty()) {
    POLYAD_ASSIGN_OR_RETURN(keys, ReadFileLimited(api_keys_file, kMaxKeyFileBytes));
  }
  if (!admin_token_file.empty()) {
    POLYAD_ASSIGN_OR_RETURN(token, ReadFileLimited(admin_token_file, kMaxTokenBytes));
    if (Trim(token).empty()) return InvalidArgument("admin-token-file: expected a token, got none");
  }
  POLYAD_ASSIGN_OR_RETURN(Credentials credentials, Parse(keys, token));
  if (!api_keys_file.empty() && !credentials.has_tenants()) {
    return InvalidArgument("api-keys-file: expected lines 'tenant:sha256', got none");
  }
  return credentials;
}

StatusOr<Credentials> Credentials::Parse(std::string_view api_keys, std::string_view admin_token) {
  Credentials out;
  int64_t line_number = 0;
  while (!api_keys.empty()) {
    const size_t end = std::min(api_keys.find('\n'), api_keys.size());
    const std::string_view line = Trim(api_keys.substr(0, end));
    api_keys.remove_prefix(std::min(end + 1, api_keys.size()));
    ++line_number;
    if (line.empty() || line.front() == '#') continue;
    const size_t colon = line.find(':');
    Key key;
    if (colon == std::string_view::npos || !IsAdapterName(line.substr(0, colon)) ||
        !ParseDigest(line.substr(colon + 1), key.digest)) {
      return InvalidArgument("api-keys-file line %d: expected 'tenant:<64 hex digits>'",
                             line_number);
    }
    if (out.keys_.size() == kMaxKeys) {
      return InvalidArgument("api-keys-file: expected at most %d keys", kMaxKeys);
    }
    key.tenant = std::string(line.substr(0, colon));
    out.keys_.push_back(std::move(key));
  }
  if (const std::string_view token = Trim(admin_token); !token.empty()) {
    out.admin_ = HashOf(token);
    out.has_admin_ = true;
  }
  return out;
}

const Credentials::Key* Credentials::FindKey(const Digest& digest) const {
  const Key* found = nullptr;
  for (const Key& key : keys_) {  // all of them, whichever matches
    if (EqualInConstantTime(key.digest, digest)) found = &key;
  }
  return found;
}

StatusOr<std::string> Credentials::Tenant(std::string_view authorization) const {
  if (keys_.empty()) return std::string();
  const std::string_view presented = BearerKey(authorization);
  if (presented.empty()) return Unauthenticated();
  const Key* key = FindKey(HashOf(presented));
  if (key == nullptr) return Unauthenticated();
  return key->tenant;
}

Status Credentials::CheckAdmin(std::string_view authorization) const {
  if (!has_admin_) return absl::OkStatus();
  const std::string_view presented = BearerKey(authorization);
  if (presented.empty()) return Unauthenticated();
  const Digest digest = HashOf(presented);
  if (EqualInConstantTime(digest, admin_)) return absl::OkStatus();
  if (FindKey(digest) == nullptr) return Unauthenticated();
  return Status(absl::StatusCode::kPermissionDenied,
                std::string("authorization: expected the admin token, got a tenant's key"));
}

bool IsLoopback(std::string_view host) {
  if (host == "localhost" || host == "::1" || host == "[::1]") return true;
  if (!host.starts_with("127.") || host.size() > 15) return false;
  return host.find_first_not_of("0123456789.") == std::string_view::npos;
}

}  // namespace polyad
