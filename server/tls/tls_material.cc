#include "server/tls/tls_material.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <vector>

#include "engine/io/file.h"
#include "server/tls/tls_time.h"

namespace polyad {
namespace {

constexpr int64_t kMaxPemBytes = 1 << 20;
constexpr size_t kMaxCertificates = 512;
constexpr long kMaxClientChainBytes = 32 << 10;  // what a client may send of certificates
constexpr mode_t kForeignModes = 0037;           // the group may read; nobody else may anything

using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

// What OpenSSL says of the last failure, and nothing of the data.
std::string Reason() {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  std::string text = reason == nullptr ? "unknown reason" : reason;
  ERR_clear_error();
  return text;
}

// The private key's text, of a file that nobody else may read.
StatusOr<std::string> ReadKeyFile(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return NotFound("tls-key: cannot be opened: %s", std::strerror(errno));
  struct stat info {};
  Status status = absl::OkStatus();
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    status = InvalidArgument("tls-key: expected a regular file");
  } else if ((info.st_mode & kForeignModes) != 0) {
    status = InvalidArgument(
        "tls-key: expected a file that only its owner and group may read (chmod 600), got mode %o",
        static_cast<unsigned>(info.st_mode & 07777));
  } else if (info.st_size > kMaxPemBytes) {
    status = ResourceExhausted("tls-key: expected at most %d bytes, got %d", kMaxPemBytes,
                               static_cast<int64_t>(info.st_size));
  }
  std::string text;
  if (status.ok()) {
    text.resize(static_cast<size_t>(info.st_size));
    const ssize_t n = ::read(fd, text.data(), text.size());
    if (n != static_cast<ssize_t>(text.size())) {
      status = DataLoss("tls-key: changed while it was read");
    }
  }
  ::close(fd);
  if (!status.ok()) return status;
  return text;
}

StatusOr<std::string> ReadPem(const char* what, const std::string& path) {
  StatusOr<std::string> text = ReadFileLimited(path, kMaxPemBytes);
  return text.ok() ? text : Annotate(text.status(), what);
}

// Every certificate of a PEM text, in order.
StatusOr<std::vector<Certificate>> ParseCertificates(const char* what, const std::string& pem) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(
      BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free);
  std::vector<Certificate> out;
  for (;;) {
    Certificate next(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), &X509_free);
    if (next == nullptr) break;
    if (out.size() == kMaxCertificates) {
      return InvalidArgument("%s: expected at most %d certificates", what, kMaxCertificates);
    }
    out.push_back(std::move(next));
  }
  const unsigned long error = ERR_peek_last_error();
  if (ERR_GET_LIB(error) != ERR_LIB_PEM || ERR_GET_REASON(error) != PEM_R_NO_START_LINE) {
    return InvalidArgument("%s: certificate %d: %s", what, out.size(), Reason());
  }
  ERR_clear_error();
  if (out.empty()) return InvalidArgument("%s: expected certificates in PEM, got none", what);
  return out;
}

std::string DateOf(int64_t unix_s) {
  const time_t seconds = static_cast<time_t>(unix_s);
  struct tm parts {};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

Status CheckInForce(const char* what, const X509& certificate) {
  const int64_t begin = UnixSecondsOf(*X509_get0_notBefore(&certificate));
  const int64_t end = UnixSecondsOf(*X509_get0_notAfter(&certificate));
  const int64_t now = static_cast<int64_t>(std::time(nullptr));
  if (now >= begin && now < end) return absl::OkStatus();
  return InvalidArgument("%s: expected a certificate in force now, got one from %s to %s", what,
                         DateOf(begin), DateOf(end));
}

int NoPassword(char*, int, int, void*) { return -1; }  // never ask a terminal

// We speak HTTP/1.1; who offers protocols without it is told so instead of being misunderstood.
int ChooseProtocol(SSL*, const unsigned char** out, unsigned char* out_size,
                   const unsigned char* offered, unsigned offered_size, void*) {
  static constexpr unsigned char kOurs[] = "\x08http/1.1";
  unsigned char* chosen = nullptr;
  const int result =
      SSL_select_next_proto(&chosen, out_size, kOurs, sizeof(kOurs) - 1, offered, offered_size);
  *out = chosen;
  return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

}  // namespace

TlsMaterial::~TlsMaterial() {
  SSL_CTX_free(context_);
  OPENSSL_cleanse(key_.data(), key_.size());
}

StatusOr<std::shared_ptr<const TlsMaterial>> TlsMaterial::Load(const TlsPaths& paths) {
  std::shared_ptr<TlsMaterial> material(new TlsMaterial());
  POLYAD_RETURN_IF_ERROR(material->Read(paths));
  POLYAD_RETURN_IF_ERROR(material->MakeContext());
  POLYAD_RETURN_IF_ERROR(material->UseCertificate());
  POLYAD_RETURN_IF_ERROR(material->UseKey());
  if (!material->client_ca_.empty()) POLYAD_RETURN_IF_ERROR(material->UseClientCa());
  return std::shared_ptr<const TlsMaterial>(std::move(material));
}

Status TlsMaterial::Read(const TlsPaths& paths) {
  POLYAD_ASSIGN_OR_RETURN(certificate_, ReadPem("tls-cert", paths.certificate));
  POLYAD_ASSIGN_OR_RETURN(key_, ReadKeyFile(paths.key));
  if (!paths.client_ca.empty()) {
    POLYAD_ASSIGN_OR_RETURN(client_ca_, ReadPem("tls-client-ca", paths.client_ca));
    if (client_ca_.empty()) return InvalidArgument("tls-client-ca: got an empty file");
  }
  require_client_ = paths.require_client;
  return absl::OkStatus();
}

Status TlsMaterial::MakeContext() {
  ERR_clear_error();
  context_ = SSL_CTX_new(TLS_server_method());
  if (context_ == nullptr) return Internal("tls: %s", Reason());
  SSL_CTX_set_min_proto_version(context_, TLS1_2_VERSION);
  SSL_CTX_set_options(context_, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION |
                                    SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_num_tickets(context_, 0);
  SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_max_cert_list(context_, kMaxClientChainBytes);
  SSL_CTX_set_mode(context_, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                 SSL_MODE_RELEASE_BUFFERS);
  // Or a flood of records without data would keep one read busy for as long as it lasts.
  SSL_CTX_clear_mode(context_, SSL_MODE_AUTO_RETRY);
  SSL_CTX_set_alpn_select_cb(context_, &ChooseProtocol, nullptr);
  return absl::OkStatus();
}

Status TlsMaterial::UseCertificate() {
  constexpr char kWhat[] = "tls-cert";
  POLYAD_ASSIGN_OR_RETURN(const std::vector<Certificate> chain,
                          ParseCertificates(kWhat, certificate_));
  for (const Certificate& one : chain) POLYAD_RETURN_IF_ERROR(CheckInForce(kWhat, *one));
  if (SSL_CTX_use_certificate(context_, chain.front().get()) != 1) {
    return InvalidArgument("%s: %s", kWhat, Reason());
  }
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context_, chain[i].get()) != 1) {
      return InvalidArgument("%s: certificate %d: %s", kWhat, i, Reason());
    }
  }
  expires_unix_s_ = UnixSecondsOf(*X509_get0_notAfter(chain.front().get()));
  return absl::OkStatus();
}

Status TlsMaterial::UseKey() {
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(
      BIO_new_mem_buf(key_.data(), static_cast<int>(key_.size())), &BIO_free);
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
      PEM_read_bio_PrivateKey(bio.get(), nullptr, &NoPassword, nullptr), &EVP_PKEY_free);
  if (key == nullptr) {
    return InvalidArgument("tls-key: expected a private key in PEM without a password: %s",
                           Reason());
  }
  if (SSL_CTX_use_PrivateKey(context_, key.get()) != 1 ||
      SSL_CTX_check_private_key(context_) != 1) {
    return InvalidArgument("tls-key: expected the key of tls-cert: %s", Reason());
  }
  return absl::OkStatus();
}

Status TlsMaterial::UseClientCa() {
  constexpr char kWhat[] = "tls-client-ca";
  POLYAD_ASSIGN_OR_RETURN(const std::vector<Certificate> authorities,
                          ParseCertificates(kWhat, client_ca_));
  X509_STORE* store = SSL_CTX_get_cert_store(context_);
  for (const Certificate& one : authorities) {
    if (X509_STORE_add_cert(store, one.get()) != 1 ||
        SSL_CTX_add_client_CA(context_, one.get()) != 1) {
      return InvalidArgument("%s: %s", kWhat, Reason());
    }
  }
  const int required = require_client_ ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0;
  SSL_CTX_set_verify(context_, SSL_VERIFY_PEER | required, nullptr);
  return absl::OkStatus();
}

}  // namespace polyad
