#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "engine/io/file.h"
#include "engine/io/quote.h"
#include "server/probe.h"

namespace polyad {
namespace {

constexpr int64_t kMaxPemBytes = 1 << 20;
constexpr size_t kMaxServiceBytes = 127;  // its length is one byte of a message

// grpc.health.v1 by hand: HealthCheckRequest is a string, field 1; HealthCheckResponse an enum,
// field 1, of which 1 is SERVING and 2 NOT_SERVING.
grpc::ByteBuffer HealthRequest(const std::string& service) {
  std::string bytes;
  if (!service.empty()) {
    bytes = {'\x0a', static_cast<char>(service.size())};
    bytes += service;
  }
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

Status JudgeHealth(const grpc::ByteBuffer& answer) {
  std::vector<grpc::Slice> slices;
  if (!answer.Dump(&slices).ok()) return Unavailable("health: no answer");
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  if (bytes == "\x08\x01") return absl::OkStatus();
  if (bytes == "\x08\x02") return Unavailable("health: expected SERVING, got NOT_SERVING");
  return Unavailable("health: expected SERVING, got %s", Quote(bytes));
}

StatusOr<std::shared_ptr<grpc::ChannelCredentials>> CredentialsOf(const ProbeTarget& target) {
  if (!target.tls) return grpc::InsecureChannelCredentials();
  std::string authorities;
  std::vector<grpc::experimental::IdentityKeyCertPair> own;
  if (!target.ca_file.empty()) {
    POLYAD_ASSIGN_OR_RETURN(authorities, ReadFileLimited(target.ca_file, kMaxPemBytes));
  }
  if (!target.client_cert_file.empty()) {
    POLYAD_ASSIGN_OR_RETURN(std::string certificate,
                            ReadFileLimited(target.client_cert_file, kMaxPemBytes));
    POLYAD_ASSIGN_OR_RETURN(std::string key, ReadFileLimited(target.client_key_file, kMaxPemBytes));
    own.push_back({std::move(key), std::move(certificate)});
  }
  grpc::experimental::TlsChannelCredentialsOptions options;
  if (!authorities.empty() || !own.empty()) {
    options.set_certificate_provider(
        std::make_shared<grpc::experimental::StaticDataCertificateProvider>(authorities, own));
  }
  if (!own.empty()) options.watch_identity_key_cert_pairs();
  if (authorities.empty()) {
    options.set_verify_server_certs(false);
    options.set_check_call_host(false);
    options.set_certificate_verifier(
        std::make_shared<grpc::experimental::NoOpCertificateVerifier>());
  } else {
    options.watch_root_certs();
  }
  return grpc::experimental::TlsCredentials(options);
}

}  // namespace

Status ProbeGrpc(const ProbeTarget& target) {
  if (target.service.size() > kMaxServiceBytes) {
    return InvalidArgument("service: expected at most %d bytes, got %d", kMaxServiceBytes,
                           target.service.size());
  }
  POLYAD_ASSIGN_OR_RETURN(const auto credentials, CredentialsOf(target));
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (target.tls && !target.server_name.empty()) {
    arguments.SetSslTargetNameOverride(target.server_name);
  }
  const bool is_ip6 = target.host.find(':') != target.host.npos;
  const std::string address =
      (is_ip6 ? "[" + target.host + "]" : target.host) + ":" + std::to_string(target.port);
  grpc::GenericStub stub(grpc::CreateCustomChannel(address, credentials, arguments));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(target.timeout_ms));
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check",
                                          HealthRequest(target.service), &queue);
  call->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  call->Finish(&answer, &status, nullptr);
  void* tag = nullptr;
  bool is_done = false;
  queue.Next(&tag, &is_done);  // the call's deadline ends it
  if (!status.ok()) {
    return Unavailable("health: %s (code %d)", Quote(status.error_message()),
                       static_cast<int>(status.error_code()));
  }
  return JudgeHealth(answer);
}

}  // namespace polyad
