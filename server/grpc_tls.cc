#include "server/grpc_tls.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

namespace polyad {
namespace {

// What one port is known to have; gRPC calls the fetcher under the port's own lock.
struct Fetcher {
  const TlsStore& store;
  uint64_t version = 0;

  static grpc_ssl_certificate_config_reload_status Fetch(
      void* self, grpc_ssl_server_certificate_config** config) {
    auto& fetcher = *static_cast<Fetcher*>(self);
    const TlsStore::Current current = fetcher.store.current();
    if (current.version == fetcher.version) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const TlsMaterial& material = *current.material;
    const grpc_ssl_pem_key_cert_pair pair = {material.key_pem().c_str(),
                                             material.certificate_pem().c_str()};
    // Debian's gRPC 1.51 ends the process where there are none; nobody is asked for a certificate
    // then, so that these are never looked at.
    const char* authorities = material.client_ca_pem().empty() ? material.certificate_pem().c_str()
                                                               : material.client_ca_pem().c_str();
    *config = grpc_ssl_server_certificate_config_create(authorities, &pair, 1);
    fetcher.version = current.version;
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }
};

grpc_ssl_client_certificate_request_type RequestOf(const TlsMaterial& material) {
  if (material.client_ca_pem().empty()) return GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE;
  return material.require_client() ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                   : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY;
}

class RenewableCredentials final : public grpc::ServerCredentials {
 public:
  explicit RenewableCredentials(const TlsStore& store)
      : fetcher_{store},
        credentials_(grpc_ssl_server_credentials_create_with_options(
            grpc_ssl_server_credentials_create_options_using_config_fetcher(
                RequestOf(*store.current().material), &Fetcher::Fetch, &fetcher_))) {}
  ~RenewableCredentials() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  Fetcher fetcher_;
  grpc_server_credentials* const credentials_;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> MakeGrpcTls(const TlsStore& store) {
  return std::make_shared<RenewableCredentials>(store);
}

}  // namespace polyad
