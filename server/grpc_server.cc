#include "server/grpc_server.h"

#include <google/protobuf/descriptor.h>
#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <limits>
#include <mutex>

#include "engine/base/log.h"
#include "server/access.h"
#include "server/grpc_tls.h"

namespace polyad {
namespace {

// gRPC's own lines are about single clients, a failed handshake each, and no JSON.
void LogOfGrpc(gpr_log_func_args* line) {
  Log(LogLevel::kDebug, "grpc", {{"text", std::string(line->message)}});
}

void EnablePluginsOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    gpr_set_log_function(&LogOfGrpc);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

// gRPC's library adds it to every server of the process.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins,
                  [](const auto& plugin) { return plugin->name() == "proto_server_reflection"; });
  }
};

int OrNever(int ms) { return ms == 0 ? std::numeric_limits<int>::max() : ms; }

void SetLimits(const GrpcLimits& limits, grpc::ServerBuilder& builder) {
  // No grpc::ResourceQuota: short of memory, gRPC 1.51 ends whichever connection it finds first, an
  // honest one as well as the one that filled it, and held 313 MB with a quota of 64.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, OrNever(limits.max_age_ms));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, limits.age_grace_ms);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, OrNever(limits.max_idle_ms));
  builder.SetMaxReceiveMessageSize(limits.max_message_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, limits.max_metadata_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, limits.max_streams);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, limits.keepalive_ms);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             limits.min_ping_ms);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 2);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, limits.handshake_timeout_ms);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

Status CheckMethodsListed(const std::string& service_name) {
  const auto* service =
      google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(service_name);
  if (service == nullptr) return FailedPrecondition("service %s: unknown", service_name);
  for (int i = 0; i < service->method_count(); ++i) {
    POLYAD_RETURN_IF_ERROR(
        CheckListed(kRpc, "/" + service_name + "/" + service->method(i)->name()));
  }
  return absl::OkStatus();
}

}  // namespace

GrpcServer::GrpcServer() = default;
GrpcServer::~GrpcServer() { Stop(0); }

StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const std::string& listen,
                                                        const std::string& service_name,
                                                        grpc::Service& service,
                                                        const GrpcLimits& limits,
                                                        const TlsStore* tls) {
  POLYAD_RETURN_IF_ERROR(CheckMethodsListed(service_name));
  EnablePluginsOnce();
  const size_t colon = listen.rfind(':');
  if (colon == std::string::npos) {
    return InvalidArgument("listen address: expected HOST:PORT, got '%s'", listen);
  }
  grpc::ServerBuilder builder;
  SetLimits(limits, builder);
  int port = 0;
  std::unique_ptr<GrpcServer> out(new GrpcServer());
  out->credentials_ = tls == nullptr ? grpc::InsecureServerCredentials() : MakeGrpcTls(*tls);
  builder.AddListeningPort(listen, out->credentials_, &port);
  builder.RegisterService(&service);
  if (!limits.has_reflection) builder.SetOption(std::make_unique<WithoutReflection>());
  out->server_ = builder.BuildAndStart();
  if (out->server_ == nullptr || port == 0) {
    return Unavailable("listen address %s: cannot be bound", listen);
  }
  if (auto* health = out->server_->GetHealthCheckService()) {
    health->SetServingStatus(service_name, true);  // by its name too; SetServing tells all names
  }
  out->address_ = listen.substr(0, colon) + ":" + std::to_string(port);
  return out;
}

void GrpcServer::SetServing(bool serving) {
  if (auto* health = server_->GetHealthCheckService()) health->SetServingStatus(serving);
}

void GrpcServer::Stop(int64_t wait_ms) {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(wait_ms));
  server_->Wait();
  server_.reset();
}

}  // namespace polyad
