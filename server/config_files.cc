#include "server/config_files.h"

#include <utility>

#include "server/adapter_reconciler.h"

namespace polyad {

CredentialPaths CredentialPathsOf(const ServerConfig& config) {
  return {config.tenants_file, config.admin_token_file, config.metrics_token_file};
}

TlsPaths TlsPathsOf(const ServerConfig& config) {
  return {config.tls_cert, config.tls_key, config.tls_client_ca, config.tls_require_client_cert};
}

StatusOr<ConfigFiles> ReadConfigFiles(const ServerConfig& config) {
  ConfigFiles files;
  POLYAD_ASSIGN_OR_RETURN(files.credentials, LoadCredentials(CredentialPathsOf(config)));
  if (config.tls_client_ca.empty() && files.credentials.tenants.num_identities() > 0) {
    return InvalidArgument(
        "tenants file: identities: expected --tls-client-ca, which says whose certificates have "
        "them, got none");
  }
  if (const TlsPaths paths = TlsPathsOf(config); paths.any()) {
    POLYAD_ASSIGN_OR_RETURN(files.tls, TlsMaterial::Load(paths));
  }
  if (!config.otlp_endpoint.empty()) {
    POLYAD_ASSIGN_OR_RETURN(files.collector, TraceExporter::ParseEndpoint(config.otlp_endpoint));
  }
  if (!config.adapters_from.empty()) {
    auto adapters = LoadAdaptersFile(config.adapters_from);
    if (!adapters.ok()) return Annotate(adapters.status(), "adapters-from");
    files.adapters = *std::move(adapters);
  }
  return files;
}

}  // namespace polyad
