#pragma once

// The proxy as it is shipped (deploy/nginx.conf), with ports and files of the test's own in the
// place of the file's.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/raw_client.h"
#include "tests/server/test_certificates.h"

namespace polyad {

class ProxyProcess {
 public:
  struct Options {
    std::string grpc;  // the server's addresses
    std::string http;
    std::string certificate;
    std::string key;
  };

  explicit ProxyProcess(const Options& options)
      : grpc_address_("127.0.0.1:" + std::to_string(FreePort())),
        http_address_("127.0.0.1:" + std::to_string(FreePort())) {
    std::ifstream file(std::string(POLYAD_SOURCE_DIR) + "/deploy/nginx.conf");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    Replace("listen 50443", "listen " + grpc_address_, text);
    Replace("listen 8443", "listen " + http_address_, text);
    Replace("server 127.0.0.1:50051", "server " + options.grpc, text);
    Replace("server 127.0.0.1:8080", "server " + options.http, text);
    folder_.Write("nginx.conf", text);
    folder_.Write("cert.pem", options.certificate);
    folder_.Write("key.pem", options.key);
    std::filesystem::create_directory(folder_.Path("run"));
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // which ends the workers too
      ::execlp("nginx", "nginx", "-p", folder_.Path("run").c_str(), "-c",
               folder_.Path("nginx.conf").c_str(), "-g", "daemon off;", nullptr);
      ::execl("/usr/sbin/nginx", "nginx", "-p", folder_.Path("run").c_str(), "-c",
              folder_.Path("nginx.conf").c_str(), "-g", "daemon off;", nullptr);
      ::_exit(127);
    }
    for (int i = 0; i < 1000 && !running_; ++i) {
      running_ = RawClient(grpc_address_).connected() && workers().size() == 2;
      if (!running_) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
        pid_ = -1;
        return;
      }
    }
  }
  ~ProxyProcess() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, nullptr, 0);
  }
  ProxyProcess(const ProxyProcess&) = delete;
  ProxyProcess& operator=(const ProxyProcess&) = delete;

  bool running() const { return running_; }
  const std::string& grpc_address() const { return grpc_address_; }
  const std::string& http_address() const { return http_address_; }
  std::vector<pid_t> workers() const {
    const std::string pid = std::to_string(pid_);
    std::ifstream file("/proc/" + pid + "/task/" + pid + "/children");
    std::vector<pid_t> out;
    for (pid_t worker; file >> worker;) out.push_back(worker);
    return out;
  }

 private:
  static int FreePort() {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    ::bind(fd, reinterpret_cast<sockaddr*>(&address), size);
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
    ::close(fd);
    return ntohs(address.sin_port);
  }
  static void Replace(const std::string& from, const std::string& to, std::string& text) {
    const size_t at = text.find(from);
    if (at != std::string::npos) text.replace(at, from.size(), to);
  }

  const PemFolder folder_;
  std::string grpc_address_;
  std::string http_address_;
  pid_t pid_ = -1;
  bool running_ = false;
};

}  // namespace polyad
