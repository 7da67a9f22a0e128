#include "server/tls/tls_session.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>

namespace polyad {
namespace {

// A socket as OpenSSL sees it, with writes that raise no SIGPIPE (its own socket BIO does).
int DescriptorOf(BIO* bio) {
  return static_cast<int>(reinterpret_cast<intptr_t>(BIO_get_data(bio)));
}

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

int SocketWrite(BIO* bio, const char* bytes, int size) {
  const ssize_t n =
      ::send(DescriptorOf(bio), bytes, static_cast<size_t>(size), MSG_NOSIGNAL | MSG_DONTWAIT);
  BIO_clear_retry_flags(bio);
  if (n < 0 && WouldBlock()) BIO_set_retry_write(bio);
  return static_cast<int>(n);
}

int SocketRead(BIO* bio, char* bytes, int size) {
  const ssize_t n = ::recv(DescriptorOf(bio), bytes, static_cast<size_t>(size), MSG_DONTWAIT);
  BIO_clear_retry_flags(bio);
  if (n < 0 && WouldBlock()) BIO_set_retry_read(bio);
  return static_cast<int>(n);
}

long SocketControl(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

const BIO_METHOD* SocketMethod() {
  static const BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket");
    BIO_meth_set_write(made, &SocketWrite);
    BIO_meth_set_read(made, &SocketRead);
    BIO_meth_set_ctrl(made, &SocketControl);
    return made;
  }();
  return method;
}

}  // namespace

std::unique_ptr<TlsSession> TlsSession::Begin(std::shared_ptr<const TlsMaterial> material, int fd) {
  std::unique_ptr<TlsSession> session(new TlsSession());
  session->ssl_ = SSL_new(material->context());
  BIO* bio = BIO_new(SocketMethod());
  if (session->ssl_ == nullptr || bio == nullptr) {
    BIO_free(bio);
    return nullptr;
  }
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<intptr_t>(fd)));
  BIO_set_init(bio, 1);
  SSL_set_bio(session->ssl_, bio, bio);
  SSL_set_accept_state(session->ssl_);
  session->material_ = std::move(material);
  return session;
}

TlsSession::~TlsSession() { SSL_free(ssl_); }

TlsSession::Result TlsSession::Interpret(int result) {
  if (result > 0) return Result::kDone;
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_READ:
      return Result::kWantRead;
    case SSL_ERROR_WANT_WRITE:
      return Result::kWantWrite;
    case SSL_ERROR_ZERO_RETURN:
      return Result::kClosed;
    default:
      break;
  }
  broken_ = true;
  plain_http_ = ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST;
  ERR_clear_error();
  return Result::kFailed;
}

TlsSession::Result TlsSession::Handshake() {
  if (broken_) return Result::kFailed;
  ERR_clear_error();
  const Result result = Interpret(SSL_do_handshake(ssl_));
  if (result != Result::kDone) return result;
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(SSL_get1_peer_certificate(ssl_),
                                                                &X509_free);
  if (certificate != nullptr && SSL_get_verify_result(ssl_) == X509_V_OK) {
    peer_ = std::make_shared<const PeerIdentity>(IdentityOf(*certificate));
  }
  return result;
}

TlsSession::Result TlsSession::Read(char* out, size_t size, size_t& num_read) {
  num_read = 0;
  if (broken_) return Result::kFailed;
  ERR_clear_error();
  return Interpret(SSL_read_ex(ssl_, out, size, &num_read));
}

TlsSession::Result TlsSession::Write(std::string_view bytes, size_t& num_written) {
  num_written = 0;
  if (broken_) return Result::kFailed;
  if (bytes.empty()) return Result::kDone;
  ERR_clear_error();
  return Interpret(SSL_write_ex(ssl_, bytes.data(), bytes.size(), &num_written));
}

bool TlsSession::has_read_ahead() const { return !broken_ && SSL_pending(ssl_) > 0; }

void TlsSession::SayGoodbye() {
  if (broken_ || !SSL_is_init_finished(ssl_)) return;
  ERR_clear_error();
  if (SSL_shutdown(ssl_) < 0) broken_ = true;
  ERR_clear_error();
}

}  // namespace polyad
