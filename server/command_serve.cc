#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <thread>

#include "engine/base/log.h"
#include "engine/engine.h"
#include "server/adapter_reconciler.h"
#include "server/adapter_watch.h"
#include "server/admin_service.h"
#include "server/command.h"
#include "server/config_files.h"
#include "server/engine_setup.h"
#include "server/grpc_server.h"
#include "server/grpc_service.h"
#include "server/http/http_server.h"
#include "server/http_api.h"
#include "server/service_manager.h"
#include "server/tls/tls_files.h"
#include "server/watchdog.h"

// `polyad serve`: builds everything bottom to top, prints the ready line, waits for a signal,
// drains, and takes it all down top to bottom.

namespace polyad {
namespace {

constexpr size_t kLoaderThreads = 2;
constexpr size_t kWaiterThreads = 4;
constexpr size_t kMaxQueuedTasks = 64;
constexpr size_t kEmbedderThreads = 2;
constexpr size_t kMaxEmbedderTasks = 4096;

// The fronts, in order of construction.
struct Fronts {
  explicit Fronts(Serving& serving)
      : watch(serving.registry),
        inference(MakeInferenceService(serving)),
        admin(MakeAdminService(serving, watch)),
        api(serving) {}

  AdapterWatch watch;
  std::unique_ptr<grpc::Service> inference;
  std::unique_ptr<grpc::Service> admin;
  HttpApi api;
  std::unique_ptr<GrpcServer> data_server;
  std::unique_ptr<GrpcServer> admin_server;
  std::unique_ptr<HttpServer> http_server;
};

GrpcLimits GrpcLimitsOf(const ServerConfig& config) {
  GrpcLimits limits;
  limits.max_streams = static_cast<int>(config.max_streams);
  limits.max_metadata_bytes = static_cast<int>(config.grpc_max_metadata_kib) << 10;
  limits.min_ping_ms = static_cast<int>(config.grpc_min_ping_ms);
  limits.handshake_timeout_ms = static_cast<int>(config.tls_handshake_timeout_ms);
  limits.max_age_ms = static_cast<int>(config.grpc_max_age_ms);
  limits.age_grace_ms = static_cast<int>(config.grpc_age_grace_ms);
  limits.max_idle_ms = static_cast<int>(config.grpc_max_idle_ms);
  return limits;
}

Status StartFronts(const ServerConfig& config, Clock& clock, const TlsStore* tls, Fronts& fronts) {
  GrpcLimits limits = GrpcLimitsOf(config);
  limits.has_reflection = HasReflection(config, config.grpc_listen);
  POLYAD_ASSIGN_OR_RETURN(fronts.data_server,
                          GrpcServer::Start(config.grpc_listen, "polyad.v1.InferenceService",
                                            *fronts.inference, limits, tls));
  limits.has_reflection = HasReflection(config, config.admin_listen);
  POLYAD_ASSIGN_OR_RETURN(fronts.admin_server,
                          GrpcServer::Start(config.admin_listen, "polyad.v1.AdapterAdminService",
                                            *fronts.admin, limits, tls));
  HttpServer::Options http;
  http.listen = config.http_listen;
  http.num_workers = static_cast<size_t>(config.http_workers);
  http.limits.max_connections = static_cast<size_t>(config.http_max_connections);
  http.limits.request_timeout_ms = config.http_request_timeout_ms;
  http.limits.handshake_timeout_ms = config.tls_handshake_timeout_ms;
  http.limits.max_stream_bytes = static_cast<size_t>(config.stream_buffer_kib) << 10;
  http.tls = tls;
  POLYAD_ASSIGN_OR_RETURN(fronts.http_server,
                          HttpServer::Start(http, clock, [&fronts](const auto& exchange) {
                            fronts.api.Handle(exchange);
                          }));
  return absl::OkStatus();
}

// A closed door that nobody was told of looks like a broken one.
void WarnOfClosedAdmin(const ServerConfig& config, const Serving& serving) {
  const auto warn = [&](const char* flag, const std::string& listen, Reach reach) {
    const Status open = serving.credentials.Authorize(Access::kAdmin, reach, "").status();
    if (!absl::IsPermissionDenied(open)) return;
    Log(LogLevel::kWarning, "admin_closed",
        {{"flag", flag}, {"listen", listen}, {"why", std::string(open.message())}});
  };
  warn("admin-listen", config.admin_listen, serving.reaches.admin);
  warn("http-listen", config.http_listen, serving.reaches.http);
}

// Blocks the signals that we wait for, in this thread and all that it starts.
sigset_t BlockSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a file at its limit is a full disk
  return set;
}

// The listeners' TLS and its files, where they have any.
struct Tls {
  std::unique_ptr<TlsStore> store;
  std::unique_ptr<TlsFiles> files;
};

Tls OpenTls(const ServerConfig& config, std::shared_ptr<const TlsMaterial> material,
            Metrics& metrics) {
  Tls tls;
  if (material == nullptr) return tls;
  tls.store = std::make_unique<TlsStore>(std::move(material));
  tls.files = std::make_unique<TlsFiles>(TlsPathsOf(config), *tls.store, metrics);
  return tls;
}

// Looks after the engine, the credentials and the certificate until a signal ends it. -> the signal
int Supervise(const sigset_t& set, Watchdog& watchdog, CredentialFiles& files, TlsFiles* tls,
              const std::function<void()>& tick) {
  constexpr timespec kTick{0, 250'000'000};
  for (;;) {
    const int signal_number = sigtimedwait(&set, nullptr, &kTick);
    watchdog.Check();
    tick();
    if (signal_number == SIGHUP) {
      files.Reload().IgnoreError();
      if (tls != nullptr) tls->Reload().IgnoreError();
    } else if (signal_number > 0) {
      return signal_number;
    } else {
      files.ReloadIfChanged();
      if (tls != nullptr) tls->ReloadIfChanged();
    }
  }
}

// Until what the file declares has been tried once: a server that is ready has what it could get.
// -> whether no signal ended the wait
bool AwaitDeclared(const sigset_t& set, const AdapterReconciler& reconciler) {
  constexpr timespec kTick{0, 20'000'000};
  while (!reconciler.has_tried_all()) {
    const int signal_number = sigtimedwait(&set, nullptr, &kTick);
    if (signal_number == SIGTERM || signal_number == SIGINT) return false;
  }
  return true;
}

// Nothing runs any more; what slow readers have not taken yet is theirs until the time is over.
void AwaitReaders(int64_t until_ms, Serving& serving, Fronts& fronts) {
  const auto left_ms = [&] { return std::max<int64_t>(until_ms - serving.clock.NowMillis(), 0); };
  const bool all = fronts.http_server->Finish(left_ms());
  // A stream is gRPC's once it has been written; its server has the last of it sent before it ends.
  fronts.data_server->Stop(left_ms());
  if (!all) Log(LogLevel::kWarning, "readers_cut", {});
}

// Until nothing runs and waits to be read any more, or the drain's time is over; a second signal
// ends the process.
void DrainAfter(int signal_number, sigset_t set, const ServerConfig& config, Serving& serving,
                Fronts& fronts) {
  sigdelset(&set, SIGHUP);
  Log(LogLevel::kInfo, "signal", {{"number", signal_number}});
  std::atomic<bool> drained{false};
  std::thread drain([&] {
    const int64_t until_ms = serving.clock.NowMillis() + config.drain_ms;
    if (DrainServing(serving, config.drain_ms)) AwaitReaders(until_ms, serving, fronts);
    drained.store(true);
  });
  bool again = false;
  while (!drained.load() && !again) {
    const timespec tick{0, 20'000'000};
    again = sigtimedwait(&set, nullptr, &tick) > 0;
  }
  if (again) std::_Exit(kExitInterrupted);  // at once, as asked twice
  drain.join();
}

void StopFronts(Fronts& fronts) {
  // What is still open after draining is ended; nothing that matters is left to wait for.
  constexpr int64_t kLastWordsMs = 500;
  fronts.data_server->Stop(kLastWordsMs);
  fronts.admin_server->Stop(0);
  fronts.http_server.reset();
}

int Serve(const ServerConfig& config, BackendMaker make_backend) {
  const sigset_t signals = BlockSignals();
  auto read = ReadConfigFiles(config);
  if (!read.ok()) return PrintError(read.status(), kExitUsage);
  RealClock clock;
  Metrics metrics;
  const Tls tls = OpenTls(config, std::move(read->tls), metrics);
  Credentials credentials(std::move(read->credentials));
  CredentialFiles files(CredentialPathsOf(config), credentials, metrics);
  TenantGate gate({config.max_queued_tokens, config.max_request_mib << 20,
                   config.max_wait_ms * 1000, config.max_running},
                  clock);
  std::unique_ptr<TraceExporter> traces;  // both outlive the engine, whose last events go there
  if (read->collector) traces = std::make_unique<TraceExporter>(*std::move(read->collector));
  WorkerPool embedders(kEmbedderThreads, kMaxEmbedderTasks);
  auto engine = MakeEngine(config, make_backend, clock, &metrics);
  if (!engine.ok()) return PrintError(engine.status(), kExitModel);
  const auto registry = OpenRegistry(config, **engine);
  if (!registry.ok()) return PrintError(registry.status(), kExitModel);
  auto loaders = std::make_unique<WorkerPool>(kLoaderThreads, kMaxQueuedTasks, kLoaderNiceness);
  auto waiters = std::make_unique<WorkerPool>(kWaiterThreads, kMaxQueuedTasks);
  Serving serving{.engine = **engine,
                  .registry = **registry,
                  .credentials = credentials,
                  .gate = gate,
                  .metrics = metrics,
                  .clock = clock,
                  .loaders = *loaders,
                  .waiters = *waiters,
                  .embedders = embedders,
                  .limits = LimitsOf(config, **engine),
                  .version = kVersion,
                  .stream_buffer_bytes = config.stream_buffer_kib << 10,
                  .kv_block_size = kBlockTokens,
                  .max_adapters = config.max_adapters,
                  .adapter_roots = config.adapter_roots,
                  .traces = traces.get(),
                  .reaches = {ReachOf(config.grpc_listen), ReachOf(config.admin_listen),
                              ReachOf(config.http_listen)}};
  std::unique_ptr<AdapterReconciler> reconciler;
  if (read->adapters) {
    reconciler = std::make_unique<AdapterReconciler>(
        serving, AdapterReconciler::Options{config.adapters_from, config.state_dir},
        *std::move(read->adapters));
    if (!AwaitDeclared(signals, *reconciler)) return kExitOk;
    serving.reconciler = reconciler.get();
  }
  WarnOfClosedAdmin(config, serving);
  Fronts fronts(serving);
  if (const Status started = StartFronts(config, clock, tls.store.get(), fronts); !started.ok()) {
    return PrintError(started, kExitListen);
  }
  serving.on_readiness = [&fronts](bool ready) {
    fronts.data_server->SetServing(ready);
    fronts.admin_server->SetServing(ready);
  };
  std::printf("polyad ready grpc=%s admin=%s http=%s\n", fronts.data_server->address().c_str(),
              fronts.admin_server->address().c_str(), fronts.http_server->address().c_str());
  std::fflush(stdout);
  Watchdog watchdog(serving, config.stall_ms);
  ServiceManager manager(ProcessEnvironment, ::getpid());
  manager.Ready();
  const int signal_number = Supervise(signals, watchdog, files, tls.files.get(),
                                      [&] { manager.FeedWatchdog(serving, clock.NowMillis()); });
  manager.Stopping();
  DrainAfter(signal_number, signals, config, serving, fronts);
  StopFronts(fronts);
  reconciler.reset();  // after who looks at it, before what it loads by
  embedders.Close();
  waiters.reset();
  loaders.reset();
  Log(LogLevel::kInfo, "stopped");
  return kExitOk;
}

void PrintHelp() {
  std::printf(
      "usage: polyad serve --model PATH [flags]\n\n"
      "Serves a model and its adapters over gRPC and HTTP. Once ready it prints one line,\n"
      "polyad ready grpc=HOST:PORT admin=HOST:PORT http=HOST:PORT; logs go to standard error.\n"
      "SIGTERM drains and ends; a second one ends at once. SIGHUP reads the credentials\n"
      "and the certificate again.\n"
      "Every flag is also POLYAD_<FLAG> in the environment and a key of --config FILE;\n"
      "flags beat the environment, which beats the file.\n\n%s\n"
      "Exit codes: 0 drained, 2 bad flag or config, 3 model or adapter refused, 4 a port cannot\n"
      "be bound, 130 ended by a second signal.\n",
      KnobHelp().c_str());
}

}  // namespace

int RunServe(const Arguments& args, BackendMaker make_backend) {
  if (WantsHelp(args)) {
    PrintHelp();
    return kExitOk;
  }
  const auto config = LoadConfig(args, ProcessEnvironment);
  if (!config.ok()) return PrintError(config.status(), kExitUsage);
  if (const Status status = CheckConfig(*config); !status.ok()) {
    return PrintError(status, kExitUsage);
  }
  return Serve(*config, make_backend);
}

}  // namespace polyad
