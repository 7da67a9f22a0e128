#pragma once

// What the TLS listeners prove themselves with and whom they believe: a certificate chain with its
// private key, and the authorities that sign clients' certificates. Read from PEM files and checked
// as a whole, so that what is handed out always works; immutable from then on, any thread, shared
// by every connection begun with it. The key's file must be nobody's but the owner's and his
// group's. TLS 1.2 at least, no renegotiation, no resumption (a session would outlive the
// authorities it was made under). Errors: those of engine/io/file.h; INVALID_ARGUMENT naming the
// file and what is wrong with it.

#include <cstdint>
#include <memory>
#include <string>

#include "engine/base/status.h"

typedef struct ssl_ctx_st SSL_CTX;

namespace polyad {

struct TlsPaths {  // empty: none
  std::string certificate;
  std::string key;
  std::string client_ca;
  bool require_client = false;  // a client without a certificate is turned away

  bool any() const { return !certificate.empty(); }
};

class TlsMaterial {
 public:
  static StatusOr<std::shared_ptr<const TlsMaterial>> Load(const TlsPaths& paths);
  ~TlsMaterial();
  TlsMaterial(const TlsMaterial&) = delete;
  TlsMaterial& operator=(const TlsMaterial&) = delete;

  const std::string& certificate_pem() const { return certificate_; }
  const std::string& key_pem() const { return key_; }
  const std::string& client_ca_pem() const { return client_ca_; }  // empty: clients show nothing
  bool require_client() const { return require_client_; }
  int64_t expires_unix_s() const { return expires_unix_s_; }  // of the leaf
  SSL_CTX* context() const { return context_; }               // for HTTP/1.1

 private:
  TlsMaterial() = default;
  Status Read(const TlsPaths& paths);
  Status MakeContext();
  Status UseCertificate();
  Status UseKey();
  Status UseClientCa();

  std::string certificate_;
  std::string key_;
  std::string client_ca_;
  bool require_client_ = false;
  int64_t expires_unix_s_ = 0;
  SSL_CTX* context_ = nullptr;
};

}  // namespace polyad
