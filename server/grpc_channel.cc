#include "server/grpc_channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <string>
#include <utility>
#include <vector>

#include "engine/io/file.h"

namespace polyad {
namespace {

constexpr int64_t kMaxPemBytes = 1 << 20;
constexpr int kMaxAnswerBytes = 64 << 20;

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

StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const ProbeTarget& target) {
  POLYAD_ASSIGN_OR_RETURN(const auto credentials, CredentialsOf(target));
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(kMaxAnswerBytes);
  if (target.tls && !target.server_name.empty()) {
    arguments.SetSslTargetNameOverride(target.server_name);
  }
  const bool is_ip6 = target.host.find(':') != target.host.npos;
  const std::string address =
      (is_ip6 ? "[" + target.host + "]" : target.host) + ":" + std::to_string(target.port);
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

}  // namespace polyad
