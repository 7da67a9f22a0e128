#pragma once

// What the configuration names and a server reads before it does anything else: the tenants and
// token files, the certificate with its key and authorities, the adapters file, the collector's
// address. `serve` and
// `check-config` read them here, so that what one accepts the other does. Any thread. Errors: those
// of LoadCredentials, LoadAdaptersFile, TlsMaterial::Load and TraceExporter::ParseEndpoint.

#include <memory>
#include <optional>

#include "engine/base/status.h"
#include "server/adapters_file.h"
#include "server/auth.h"
#include "server/config.h"
#include "server/credential_files.h"
#include "server/tls/tls_material.h"
#include "server/trace_exporter.h"

namespace polyad {

CredentialPaths CredentialPathsOf(const ServerConfig& config);
TlsPaths TlsPathsOf(const ServerConfig& config);

struct ConfigFiles {
  CredentialTable credentials;
  std::shared_ptr<const TlsMaterial> tls;            // null: none is named
  std::optional<TraceExporter::Endpoint> collector;  // likewise
  std::optional<AdaptersFile> adapters;              // likewise
};

// `config` has passed CheckConfig.
StatusOr<ConfigFiles> ReadConfigFiles(const ServerConfig& config);

}  // namespace polyad
