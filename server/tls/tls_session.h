#pragma once

// The server's side of TLS on one non-blocking socket: nothing here ever waits. A call that would
// says what it wants the socket to be ready for; a broken session stays broken. Not thread-safe:
// its connection's lock guards it. A write that wanted more has to be repeated with the same bytes
// and perhaps more behind them.

#include <cstddef>
#include <memory>
#include <string_view>

#include "server/tls/peer_identity.h"
#include "server/tls/tls_material.h"

typedef struct ssl_st SSL;

namespace polyad {

class TlsSession {
 public:
  enum class Result { kDone, kWantRead, kWantWrite, kClosed, kFailed };

  // `fd` stays the caller's. Null where memory is short.
  static std::unique_ptr<TlsSession> Begin(std::shared_ptr<const TlsMaterial> material, int fd);
  ~TlsSession();
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  Result Handshake();
  Result Read(char* out, size_t size, size_t& num_read);
  Result Write(std::string_view bytes, size_t& num_written);
  bool has_read_ahead() const;  // bytes decrypted and not read yet
  void SayGoodbye();            // close_notify, where the socket has room for it

  // The handshake failed because the client speaks plain HTTP.
  bool plain_http() const { return plain_http_; }
  // After the handshake; null where the client showed no certificate.
  const std::shared_ptr<const PeerIdentity>& peer() const { return peer_; }

 private:
  TlsSession() = default;
  Result Interpret(int result);

  std::shared_ptr<const TlsMaterial> material_;
  SSL* ssl_ = nullptr;
  bool broken_ = false;
  bool plain_http_ = false;
  std::shared_ptr<const PeerIdentity> peer_;
};

}  // namespace polyad
