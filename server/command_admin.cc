#include <csignal>
#include <cstdio>
#include <string>

#include "engine/io/file.h"
#include "server/admin_call.h"
#include "server/auth.h"
#include "server/client_flags.h"
#include "server/command.h"
#include "server/config.h"
#include "server/field_error.h"

// `polyad admin`: the admin port's calls from a shell.

namespace polyad {
namespace {

constexpr int64_t kMaxTimeoutMs = 86400000;
constexpr int64_t kMaxTokenBytes = 4096;

// The word that comes next, where it is no flag.
std::string TakeWord(Arguments& words) {
  if (words.empty() || words.front().starts_with("--")) return "";
  std::string word = words.front();
  words.erase(words.begin());
  return word;
}

StatusOr<std::string> ReadToken(const std::string& path) {
  if (path.empty()) return std::string();
  POLYAD_ASSIGN_OR_RETURN(std::string text, ReadFileLimited(path, kMaxTokenBytes));
  const char* kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return FieldError("token-file", "a token", path + ", which is empty");
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

StatusOr<AdminCall> ParseAdmin(const Arguments& args) {
  Arguments words = args;
  AdminCall call;
  std::string address;
  std::string word = TakeWord(words);
  if (word.find(':') != word.npos) {
    address = word;
    word = TakeWord(words);
  }
  if (word.empty()) return InvalidArgument("expected a METHOD (see polyad admin --help)");
  call.method = word;
  if (const std::string json = TakeWord(words); !json.empty()) call.request = json;
  OwnFlags flags(words);
  ProbeTarget& target = call.target;
  POLYAD_ASSIGN_OR_RETURN(target.timeout_ms, flags.TakeInt("timeout-ms", 0, 0, kMaxTimeoutMs));
  std::string token_file = flags.Take("token-file").value_or("");
  POLYAD_RETURN_IF_ERROR(TakeTlsFlags(flags, target));
  if (address.empty()) {
    POLYAD_ASSIGN_OR_RETURN(const ServerConfig config,
                            LoadConfig(flags.rest(), ProcessEnvironment));
    address = config.admin_listen;
    if (token_file.empty()) token_file = config.admin_token_file;
    if (!config.tls_cert.empty()) target.tls = true;
  } else if (!flags.rest().empty()) {
    return InvalidArgument("argument '%s': unknown beside HOST:PORT (see --help)",
                           flags.rest().front());
  }
  POLYAD_RETURN_IF_ERROR(SetAddress(address, target));
  POLYAD_ASSIGN_OR_RETURN(call.token, ReadToken(token_file));
  if (!call.token.empty() && target.ca_file.empty() && !IsLoopback(target.host)) {
    return FieldError("ca", "authorities, before a token is sent beyond this machine", "none");
  }
  POLYAD_RETURN_IF_ERROR(CheckAdminCall(call));
  return call;
}

void PrintAdminHelp() {
  std::printf(
      "usage: polyad admin [HOST:PORT] METHOD [JSON] [flags]\n\n"
      "Calls a method of polyad.v1.AdapterAdminService and prints each answer as a line of JSON.\n"
      "JSON is the request; none: {}. Without HOST:PORT it asks the server of this machine that\n"
      "serve's flags, its environment and --config FILE describe, with their admin token.\n"
      "  --token-file FILE  the admin token\n"
      "  --timeout-ms N     in all (default 0: as long as it takes)\n"
      "  --tls              TLS, whatever certificate is shown\n"
      "  --ca FILE          TLS, with a certificate of these authorities, for the host; a token "
      "is\n"
      "                     sent beyond this machine only so\n"
      "  --server-name NAME or for this name\n"
      "  --client-cert FILE, --client-key FILE\n"
      "                     to show to a server that asks for one\n"
      "Methods and the members of their requests, which docs/api.md describes:\n%s"
      "Exit codes: 0 done, 1 refused or no answer, 2 bad flag, method, request or file.\n",
      AdminMethodsHelp().c_str());
}

}  // namespace

int RunAdmin(const Arguments& args) {
  if (WantsHelp(args)) {
    PrintAdminHelp();
    return kExitOk;
  }
  std::signal(SIGPIPE, SIG_IGN);
  const auto call = ParseAdmin(args);
  if (!call.ok()) return PrintError(call.status(), kExitUsage);
  const Status status = CallAdmin(*call, [](const std::string& json) {
    std::printf("%s\n", json.c_str());
    std::fflush(stdout);
  });
  if (status.ok()) return kExitOk;
  std::fprintf(stderr, "polyad: %s: %s\n", call->method.c_str(), status.ToString().c_str());
  return kExitFailed;
}

}  // namespace polyad
