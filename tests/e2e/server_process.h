#pragma once

// The real program as a child process, on free ports, with its ready line read and its end waited
// for.

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace polyad {

class ServerProcess {
 public:
  // `args` follow "polyad serve"; ports are chosen here. `environment` is added to the test's own.
  explicit ServerProcess(std::vector<std::string> args,
                         const std::map<std::string, std::string>& environment = {}) {
    args.insert(args.begin(),
                {POLYAD_PROGRAM, "serve", "--grpc-listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0",
                 "--http-listen=127.0.0.1:0", "--log-level=warning"});
    int out[2];
    if (::pipe2(out, O_CLOEXEC) != 0) return;
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // never outlives a test that crashed
      ::dup2(out[1], STDOUT_FILENO);
      for (const auto& [name, value] : environment) ::setenv(name.c_str(), value.c_str(), 1);
      std::vector<char*> argv;
      for (std::string& arg : args) argv.push_back(arg.data());
      argv.push_back(nullptr);
      ::execv(POLYAD_PROGRAM, argv.data());
      ::_exit(127);
    }
    ::close(out[1]);
    out_ = out[0];
    ready_line_ = ReadLine(60'000);
  }
  ~ServerProcess() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    if (out_ >= 0) ::close(out_);
  }
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  const std::string& ready_line() const { return ready_line_; }
  // Of "grpc", "admin" or "http".
  std::string Address(const std::string& name) const {
    const size_t at = ready_line_.find(" " + name + "=");
    if (at == std::string::npos) return "";
    const size_t begin = at + name.size() + 2;
    return ready_line_.substr(begin, ready_line_.find_first_of(" \n", begin) - begin);
  }
  pid_t pid() const { return pid_; }
  void Signal(int number) const { ::kill(pid_, number); }
  // The exit code, or 128 + the signal that ended it.
  int Wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  // "VmRSS" or "Threads" of /proc/PID/status; -1 where the process is gone.
  int64_t StatusField(const std::string& name) const {
    std::FILE* file = std::fopen(("/proc/" + std::to_string(pid_) + "/status").c_str(), "r");
    if (file == nullptr) return -1;
    int64_t value = -1;
    char line[256];
    while (std::fgets(line, sizeof(line), file) != nullptr) {
      if (std::string(line).starts_with(name + ":"))
        value = std::stoll(std::string(line).substr(name.size() + 1));
    }
    std::fclose(file);
    return value;
  }

 private:
  std::string ReadLine(int wait_ms) const {
    std::string line;
    char c = 0;
    pollfd watched{out_, POLLIN, 0};
    while (line.size() < 1000 && c != '\n' && ::poll(&watched, 1, wait_ms) > 0 &&
           ::read(out_, &c, 1) == 1) {
      line.push_back(c);
    }
    return line;
  }

  pid_t pid_ = -1;
  int out_ = -1;
  std::string ready_line_;
};

// What a command of the program prints, on either stream, to its end.
struct Output {
  int exit_code = -1;
  std::string text;
};

inline Output RunProgram(const std::string& arguments) {
  Output out;
  std::FILE* pipe = ::popen((std::string(POLYAD_PROGRAM) + " " + arguments + " 2>&1").c_str(), "r");
  std::array<char, 4096> bytes;
  for (size_t n; (n = std::fread(bytes.data(), 1, bytes.size(), pipe)) > 0;)
    out.text.append(bytes.data(), n);
  out.exit_code = WEXITSTATUS(::pclose(pipe));
  return out;
}

}  // namespace polyad
