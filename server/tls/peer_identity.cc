#include "server/tls/peer_identity.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <memory>
#include <utility>

#include "server/tls/tls_time.h"

namespace polyad {
namespace {

constexpr std::string_view kDns = "dns:";
constexpr std::string_view kUri = "uri:";
constexpr std::string_view kCommonName = "cn:";

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return out;
}

Digest HashOf(std::string_view kind, std::string_view name) {
  Sha256 sha;
  sha.Update(kind);
  sha.Update(kind == kDns ? Lower(name) : std::string(name));
  return sha.Finish();
}

bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxIdentityBytes &&
         name.find('\0') == std::string_view::npos;
}

// Adds a name; false where the certificate is not to be trusted with any.
bool AddName(std::string_view kind, std::string_view name, PeerIdentity& identity) {
  if (!IsName(name) || identity.names.size() == kMaxPeerNames) return false;
  identity.names.push_back(HashOf(kind, name));
  return true;
}

bool AddAlternativeNames(X509& certificate, PeerIdentity& identity) {
  const std::unique_ptr<GENERAL_NAMES, decltype(&GENERAL_NAMES_free)> names(
      static_cast<GENERAL_NAMES*>(
          X509_get_ext_d2i(&certificate, NID_subject_alt_name, nullptr, nullptr)),
      &GENERAL_NAMES_free);
  const int count = names == nullptr ? 0 : sk_GENERAL_NAME_num(names.get());
  for (int i = 0; i < count; ++i) {
    int type = 0;
    const void* value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names.get(), i), &type);
    if (type != GEN_DNS && type != GEN_URI) continue;
    const auto* text = static_cast<const ASN1_IA5STRING*>(value);
    const std::string_view name(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                                static_cast<size_t>(ASN1_STRING_length(text)));
    if (!AddName(type == GEN_DNS ? kDns : kUri, name, identity)) return false;
  }
  return true;
}

bool AddCommonName(X509& certificate, PeerIdentity& identity) {
  const X509_NAME* subject = X509_get_subject_name(&certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0) return true;
  if (X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0) return false;  // two of them
  unsigned char* utf8 = nullptr;
  const int size =
      ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  if (size < 0) return false;
  const bool added = AddName(
      kCommonName, {reinterpret_cast<const char*>(utf8), static_cast<size_t>(size)}, identity);
  OPENSSL_free(utf8);
  return added;
}

}  // namespace

StatusOr<Digest> IdentityDigest(std::string_view identity) {
  for (std::string_view kind : {kDns, kUri, kCommonName}) {
    if (!identity.starts_with(kind)) continue;
    const std::string_view name = identity.substr(kind.size());
    if (IsName(name)) return HashOf(kind, name);
    break;
  }
  return InvalidArgument("expected dns:, uri: or cn: and 1 to %d bytes, got %d bytes",
                         kMaxIdentityBytes, identity.size());
}

PeerIdentity IdentityOf(X509& certificate) {
  PeerIdentity identity;
  identity.expires_unix_s = UnixSecondsOf(*X509_get0_notAfter(&certificate));
  const bool named = AddAlternativeNames(certificate, identity) &&
                     (!identity.names.empty() || AddCommonName(certificate, identity));
  if (!named) identity.names.clear();
  ERR_clear_error();
  return identity;
}

PeerIdentity IdentityOfPem(std::string_view pem) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(
      BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free);
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(
      PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), &X509_free);
  ERR_clear_error();
  return certificate == nullptr ? PeerIdentity{} : IdentityOf(*certificate);
}

}  // namespace polyad
