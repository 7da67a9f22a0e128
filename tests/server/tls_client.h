#pragma once

// A client of a local HTTPS server, by OpenSSL: shows what it is told to show, believes whom it is
// told to believe, and says what came of it.

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <csignal>
#include <string>
#include <string_view>

#include "tests/server/raw_client.h"
#include "tests/server/test_certificates.h"

namespace polyad {

struct TlsClientOptions {
  std::string authority{};  // PEM; empty: believes anybody
  PemPair own{};            // empty: shows nothing
  std::string protocols{};  // ALPN's list, each with its length before it
  int max_version = TLS1_3_VERSION;
  bool handshake = true;  // at once
  uint32_t source = INADDR_LOOPBACK;
};

class TlsClient {
 public:
  explicit TlsClient(const std::string& address, const TlsClientOptions& options = {})
      : socket_(address, 0, options.source),
        context_(SSL_CTX_new(TLS_client_method()), &SSL_CTX_free),
        ssl_(nullptr, &SSL_free) {
    std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes to a socket that the server has closed
    SSL_CTX_set_max_proto_version(context_.get(), options.max_version);
    if (options.max_version < TLS1_2_VERSION) {
      SSL_CTX_set_min_proto_version(context_.get(), TLS1_VERSION);
      SSL_CTX_set_security_level(context_.get(), 0);
    }
    if (!options.authority.empty()) {
      const auto authority = Read(options.authority);
      X509_STORE_add_cert(SSL_CTX_get_cert_store(context_.get()), authority.get());
      SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
    }
    if (!options.own.certificate.empty()) {
      SSL_CTX_use_certificate(context_.get(), Read(options.own.certificate).get());
      const std::unique_ptr<BIO, decltype(&BIO_free)> bio(
          BIO_new_mem_buf(options.own.key.data(), static_cast<int>(options.own.key.size())),
          &BIO_free);
      const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
          PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr), &EVP_PKEY_free);
      SSL_CTX_use_PrivateKey(context_.get(), key.get());
    }
    ssl_.reset(SSL_new(context_.get()));
    SSL_set_fd(ssl_.get(), socket_.fd());
    if (!options.authority.empty()) SSL_set1_host(ssl_.get(), "localhost");
    if (!options.protocols.empty()) {
      SSL_set_alpn_protos(ssl_.get(),
                          reinterpret_cast<const unsigned char*>(options.protocols.data()),
                          static_cast<unsigned>(options.protocols.size()));
    }
    timeval patience{20, 0};
    ::setsockopt(socket_.fd(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (options.handshake) Handshake();
  }

  bool Handshake() {
    ERR_clear_error();
    connected_ = SSL_connect(ssl_.get()) == 1;
    NoteError();
    return connected_;
  }
  bool connected() const { return connected_; }
  // OpenSSL's word for what went wrong last, such as "tlsv1 alert unknown ca".
  const std::string& error() const { return error_; }
  RawClient& socket() { return socket_; }
  std::string protocol() const {
    const unsigned char* name = nullptr;
    unsigned size = 0;
    SSL_get0_alpn_selected(ssl_.get(), &name, &size);
    return std::string(reinterpret_cast<const char*>(name), size);
  }
  // The serial number of what the server shows.
  long serial() const {
    const X509* shown = SSL_get0_peer_certificate(ssl_.get());
    return shown == nullptr ? 0 : ASN1_INTEGER_get(X509_get0_serialNumber(shown));
  }

  bool Send(std::string_view bytes) {
    size_t written = 0;
    return connected_ && SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &written) == 1;
  }
  // Until `until` has come, or the end. Everything read so far.
  std::string ReadUntil(std::string_view until) {
    char bytes[16384];
    size_t n = 0;
    while (connected_ && (until.empty() || received_.find(until) == std::string::npos)) {
      ERR_clear_error();
      if (SSL_read_ex(ssl_.get(), bytes, sizeof(bytes), &n) != 1) {
        const int why = SSL_get_error(ssl_.get(), 0);
        clean_end_ = why == SSL_ERROR_ZERO_RETURN;
        ended_ = why != SSL_ERROR_WANT_READ;
        NoteError();
        break;
      }
      received_.append(bytes, n);
    }
    return received_;
  }
  std::string ReadAll() { return ReadUntil(""); }
  bool ended() const { return ended_; }
  bool clean_end() const { return clean_end_; }  // ended by close_notify

 private:
  static std::unique_ptr<X509, decltype(&X509_free)> Read(const std::string& pem) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> bio(
        BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free);
    return {PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), &X509_free};
  }
  void NoteError() {
    const char* reason = ERR_reason_error_string(ERR_peek_error());
    error_ = reason == nullptr ? "" : reason;
  }

  RawClient socket_;
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_;
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl_;
  bool connected_ = false;
  bool ended_ = false;
  bool clean_end_ = false;
  std::string error_;
  std::string received_;
};

inline std::string AskTls(const std::string& address, const std::string& request,
                          const TlsClientOptions& options = {}) {
  TlsClient client(address, options);
  client.Send(request);
  return client.ReadAll();
}

}  // namespace polyad
