#include <csignal>
#include <cstdio>
#include <string>

#include "server/client_flags.h"
#include "server/command.h"
#include "server/config.h"
#include "server/field_error.h"
#include "server/probe.h"

// `polyad probe`: whether a server is ready, for images without a shell, and for whoever deploys.

namespace polyad {
namespace {

constexpr int64_t kDefaultTimeoutMs = 3000;
constexpr int64_t kMaxTimeoutMs = 3600000;

enum class Question { kHttp, kGrpc, kHandshake };

struct Probe {
  std::string address;
  ProbeTarget target;
  Question question = Question::kHttp;
};

StatusOr<Probe> ParseProbe(const Arguments& args) {
  Arguments words = args;
  Probe probe;
  if (!words.empty() && !words.front().starts_with("--")) {
    probe.address = words.front();
    words.erase(words.begin());
  }
  OwnFlags flags(words);
  ProbeTarget& target = probe.target;
  POLYAD_ASSIGN_OR_RETURN(target.timeout_ms,
                          flags.TakeInt("timeout-ms", kDefaultTimeoutMs, 1, kMaxTimeoutMs));
  const bool live = flags.TakeSwitch("live");
  const bool admin = flags.TakeSwitch("admin");
  const auto service = flags.Take("service");
  if (flags.TakeSwitch("grpc") || admin || service) probe.question = Question::kGrpc;
  if (live && probe.question == Question::kGrpc) {
    return FieldError("live", "HTTP, which alone has it", "--grpc");
  }
  if (live) target.path = "/health";
  target.service = service.value_or("");
  POLYAD_RETURN_IF_ERROR(TakeTlsFlags(flags, target));
  if (probe.address.empty()) {
    POLYAD_ASSIGN_OR_RETURN(const ServerConfig config,
                            LoadConfig(flags.rest(), ProcessEnvironment));
    probe.address = probe.question == Question::kHttp ? config.http_listen
                    : admin                           ? config.admin_listen
                                                      : config.grpc_listen;
    if (!config.tls_cert.empty()) target.tls = true;
    if (config.tls_require_client_cert && target.client_cert_file.empty()) {
      probe.question = Question::kHandshake;
    }
  } else if (!flags.rest().empty()) {
    return InvalidArgument("argument '%s': unknown beside HOST:PORT (see --help)",
                           flags.rest().front());
  }
  POLYAD_RETURN_IF_ERROR(SetAddress(probe.address, target));
  return probe;
}

Status Ask(const Probe& probe) {
  if (probe.question == Question::kHttp) return ProbeHttp(probe.target);
  if (probe.question == Question::kGrpc) return ProbeGrpc(probe.target);
  return ProbeHandshake(probe.target);
}

void PrintProbeHelp() {
  std::printf(
      "usage: polyad probe [HOST:PORT] [flags]\n\n"
      "Asks a server whether it is ready; prints `ready`, or why not on standard error.\n"
      "Without HOST:PORT it asks the one on this machine that serve's flags, its environment and\n"
      "--config FILE describe, with TLS where they have a certificate.\n"
      "  --grpc             ask gRPC's health service, at the data port, rather than GET /ready\n"
      "  --admin            the same at the admin port\n"
      "  --service NAME     the same for one service (default: the server as a whole)\n"
      "  --live             GET /health: whether it answers at all, ready or not\n"
      "  --timeout-ms N     in all (default 3000)\n"
      "  --tls              TLS, whatever certificate is shown\n"
      "  --ca FILE          TLS, with a certificate of these authorities, for the host\n"
      "  --server-name NAME or for this name\n"
      "  --client-cert FILE, --client-key FILE\n"
      "                     to show to a server that asks for one. Where serve's flags have\n"
      "                     tls-require-client-cert and there is none to show, it is ready as\n"
      "                     soon as it shows its own certificate.\n"
      "Exit codes: 0 ready, 1 not ready or no answer, 2 bad flag or file.\n");
}

}  // namespace

int RunProbe(const Arguments& args) {
  if (WantsHelp(args)) {
    PrintProbeHelp();
    return kExitOk;
  }
  std::signal(SIGPIPE, SIG_IGN);
  const auto probe = ParseProbe(args);
  if (!probe.ok()) return PrintError(probe.status(), kExitUsage);
  const Status status = Ask(*probe);
  if (!status.ok()) {
    std::fprintf(stderr, "polyad: probe %s: %s\n", probe->address.c_str(),
                 std::string(status.message()).c_str());
    return status.code() == absl::StatusCode::kUnavailable ? kExitFailed : kExitUsage;
  }
  std::printf("%s\n", probe->question == Question::kHandshake ? "shows its certificate" : "ready");
  return kExitOk;
}

}  // namespace polyad
