#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "engine/io/quote.h"
#include "server/probe.h"

namespace polyad {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr size_t kMaxAnswerBytes = 4096;  // a status line and a word

template <typename T, void (*Free)(T*)>
struct Freer {
  void operator()(T* value) const { Free(value); }
};
using SslContext = std::unique_ptr<SSL_CTX, Freer<SSL_CTX, SSL_CTX_free>>;
using SslSession = std::unique_ptr<SSL, Freer<SSL, SSL_free>>;

std::string TlsReason(SSL* ssl) {
  const long verified = ssl == nullptr ? X509_V_OK : SSL_get_verify_result(ssl);
  if (verified != X509_V_OK) return X509_verify_cert_error_string(verified);
  const char* reason = ERR_reason_error_string(ERR_get_error());
  return reason == nullptr ? "connection closed" : reason;
}

class Connection {
 public:
  explicit Connection(const ProbeTarget& target)
      : target_(target),
        deadline_(SteadyClock::now() + std::chrono::milliseconds(target.timeout_ms)) {}
  ~Connection() {
    ssl_.reset();
    if (fd_ >= 0) ::close(fd_);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  Status Connect();
  Status StartTls(int least_version);
  Status Write(std::string_view bytes);
  // Until `out` has `end` in it, the peer is done, or it holds kMaxAnswerBytes.
  Status ReadTo(std::string_view end, std::string& out);

 private:
  Status ConnectTo(const addrinfo& address);
  StatusOr<SslContext> MakeContext(int least_version) const;
  Status Await(short events);                       // the socket is ready for them
  Status Retry(int result, std::string_view what);  // of an SSL call that has to be repeated

  const ProbeTarget& target_;
  const SteadyClock::time_point deadline_;
  int fd_ = -1;
  SslContext context_;
  SslSession ssl_;
};

Status Connection::Await(short events) {
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - SteadyClock::now())
            .count();
    if (left <= 0) return Unavailable("no answer within %d ms", target_.timeout_ms);
    pollfd wanted{fd_, events, 0};
    const int ready = ::poll(&wanted, 1, static_cast<int>(left));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return Unavailable("poll: %s", std::strerror(errno));
  }
}

Status Connection::ConnectTo(const addrinfo& address) {
  fd_ = ::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return Unavailable("socket: %s", std::strerror(errno));
  if (::connect(fd_, address.ai_addr, address.ai_addrlen) == 0) return absl::OkStatus();
  if (errno != EINPROGRESS) return Unavailable("connect: %s", std::strerror(errno));
  POLYAD_RETURN_IF_ERROR(Await(POLLOUT));
  int error = 0;
  socklen_t size = sizeof(error);
  ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return Unavailable("connect: %s", std::strerror(error));
  return absl::OkStatus();
}

// The first of a name's addresses that takes the connection.
Status Connection::Connect() {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed =
      ::getaddrinfo(target_.host.c_str(), std::to_string(target_.port).c_str(), &hints, &found);
  if (failed != 0) return Unavailable("host: %s", ::gai_strerror(failed));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, &::freeaddrinfo);
  Status status = Unavailable("host: no address");
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
    status = ConnectTo(*address);
    if (status.ok()) break;
  }
  return status;
}

StatusOr<SslContext> Connection::MakeContext(int least_version) const {
  SslContext context(SSL_CTX_new(TLS_client_method()));
  if (context == nullptr) return Unavailable("TLS: no memory");
  SSL_CTX_set_min_proto_version(context.get(), least_version);
  if (!target_.ca_file.empty()) {
    if (SSL_CTX_load_verify_locations(context.get(), target_.ca_file.c_str(), nullptr) != 1) {
      return InvalidArgument("ca %s: %s", Quote(target_.ca_file), TlsReason(nullptr));
    }
    // A certificate that signs itself, or one between, is an authority where the file has it.
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context.get()), X509_V_FLAG_PARTIAL_CHAIN);
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  }
  if (!target_.client_cert_file.empty()) {
    if (SSL_CTX_use_certificate_chain_file(context.get(), target_.client_cert_file.c_str()) != 1) {
      return InvalidArgument("client-cert %s: %s", Quote(target_.client_cert_file),
                             TlsReason(nullptr));
    }
    if (SSL_CTX_use_PrivateKey_file(context.get(), target_.client_key_file.c_str(),
                                    SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context.get()) != 1) {
      return InvalidArgument("client-key %s: %s", Quote(target_.client_key_file),
                             TlsReason(nullptr));
    }
  }
  return context;
}

// What the call that gave `result` waits for has come; or why it never will.
Status Connection::Retry(int result, std::string_view what) {
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return Await(POLLIN);
    case SSL_ERROR_WANT_WRITE:
      return Await(POLLOUT);
    default:
      return Unavailable("%s: %s", what, TlsReason(ssl_.get()));
  }
}

Status Connection::StartTls(int least_version) {
  ERR_clear_error();
  POLYAD_ASSIGN_OR_RETURN(context_, MakeContext(least_version));
  ssl_.reset(SSL_new(context_.get()));
  if (ssl_ == nullptr || SSL_set_fd(ssl_.get(), fd_) != 1) return Unavailable("TLS: no memory");
  const std::string& name = target_.server_name.empty() ? target_.host : target_.server_name;
  X509_VERIFY_PARAM* wanted = SSL_get0_param(ssl_.get());
  if (X509_VERIFY_PARAM_set1_ip_asc(wanted, name.c_str()) != 1) {
    X509_VERIFY_PARAM_set1_host(wanted, name.c_str(), 0);
    SSL_set_tlsext_host_name(ssl_.get(), name.c_str());
  }
  ERR_clear_error();  // of a name that is no address
  for (;;) {
    const int result = SSL_connect(ssl_.get());
    if (result == 1) return absl::OkStatus();
    POLYAD_RETURN_IF_ERROR(Retry(result, "TLS"));
  }
}

Status Connection::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    if (ssl_ != nullptr) {
      const int n = SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size()));
      if (n > 0) {
        bytes.remove_prefix(static_cast<size_t>(n));
      } else {
        POLYAD_RETURN_IF_ERROR(Retry(n, "write"));
      }
      continue;
    }
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n > 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EAGAIN || errno == EINTR) {
      POLYAD_RETURN_IF_ERROR(Await(POLLOUT));
    } else {
      return Unavailable("write: %s", std::strerror(errno));
    }
  }
  return absl::OkStatus();
}

Status Connection::ReadTo(std::string_view end, std::string& out) {
  char buffer[kMaxAnswerBytes];
  while (out.size() < kMaxAnswerBytes && out.find(end) == out.npos) {
    if (ssl_ != nullptr) {
      const int n = SSL_read(ssl_.get(), buffer, sizeof(buffer));
      if (n > 0) {
        out.append(buffer, static_cast<size_t>(n));
        continue;
      }
      if (SSL_get_error(ssl_.get(), n) == SSL_ERROR_ZERO_RETURN) break;
      const Status status = Retry(n, "read");
      if (!status.ok() && !out.empty()) break;  // closed without a goodbye
      POLYAD_RETURN_IF_ERROR(status);
      continue;
    }
    const ssize_t n = ::recv(fd_, buffer, sizeof(buffer), 0);
    if (n == 0) break;
    if (n > 0) {
      out.append(buffer, static_cast<size_t>(n));
    } else if (errno == EAGAIN || errno == EINTR) {
      POLYAD_RETURN_IF_ERROR(Await(POLLIN));
    } else {
      return Unavailable("read: %s", std::strerror(errno));
    }
  }
  return absl::OkStatus();
}

}  // namespace

Status ProbeHttp(const ProbeTarget& target) {
  Connection connection(target);
  POLYAD_RETURN_IF_ERROR(connection.Connect());
  if (target.tls) POLYAD_RETURN_IF_ERROR(connection.StartTls(TLS1_2_VERSION));
  POLYAD_RETURN_IF_ERROR(
      connection.Write("GET " + target.path + " HTTP/1.1\r\nHost: " + target.host +
                       "\r\nUser-Agent: polyad-probe\r\nConnection: close\r\n\r\n"));
  std::string answer;
  POLYAD_RETURN_IF_ERROR(connection.ReadTo("\r\n", answer));
  // HTTP/1.1 200 OK
  constexpr std::string_view kVersion = "HTTP/1.";
  constexpr size_t kCode = kVersion.size() + 2;
  const std::string line = answer.substr(0, answer.find("\r\n"));
  if (!line.starts_with(kVersion) || line.size() < kCode + 3 ||
      (line.size() > kCode + 3 && line[kCode + 3] != ' ')) {
    return Unavailable("GET %s: expected HTTP/1, got %s", target.path,
                       line.empty() ? "nothing" : Quote(line));
  }
  const std::string code = line.substr(kCode, 3);
  if (code == "200") return absl::OkStatus();
  connection.ReadTo("\r\n\r\n", answer).IgnoreError();  // why not, where it says so
  const size_t body = answer.find("\r\n\r\n");
  std::string word;
  if (body != answer.npos) {
    word = answer.substr(body + 4);
    connection.ReadTo("\n", word).IgnoreError();
  }
  return Unavailable("GET %s: expected 200, got %s %s", target.path, Quote(code),
                     Quote(word.substr(0, word.find('\n'))));
}

Status ProbeHandshake(const ProbeTarget& target) {
  Connection connection(target);
  POLYAD_RETURN_IF_ERROR(connection.Connect());
  // In 1.3 the server has shown and proved its certificate before it looks at the client's.
  return connection.StartTls(TLS1_3_VERSION);
}

}  // namespace polyad
