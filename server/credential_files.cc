#include "server/credential_files.h"

#include "engine/base/log.h"
#include "engine/io/file.h"

namespace polyad {
namespace {

constexpr int64_t kMaxTenantsBytes = 4 << 20;
constexpr int64_t kMaxTokenBytes = 1024;

StatusOr<std::string> ReadOrNothing(const char* what, const std::string& path, int64_t max_bytes) {
  if (path.empty()) return std::string();
  StatusOr<std::string> text = ReadFileLimited(path, max_bytes);
  if (!text.ok()) return Annotate(text.status(), what);
  if (text->empty())
    return InvalidArgument("%s: expected something in it, got an empty file", what);
  return text;
}

}  // namespace

StatusOr<CredentialTable> LoadCredentials(const CredentialPaths& paths) {
  POLYAD_ASSIGN_OR_RETURN(const std::string tenants,
                          ReadOrNothing("tenants-file", paths.tenants, kMaxTenantsBytes));
  POLYAD_ASSIGN_OR_RETURN(const std::string admin,
                          ReadOrNothing("admin-token-file", paths.admin_token, kMaxTokenBytes));
  POLYAD_ASSIGN_OR_RETURN(const std::string metrics,
                          ReadOrNothing("metrics-token-file", paths.metrics_token, kMaxTokenBytes));
  return CredentialTable::Parse(tenants, admin, metrics);
}

CredentialFiles::CredentialFiles(const CredentialPaths& paths, Credentials& credentials,
                                 Metrics& metrics)
    : paths_(paths), credentials_(credentials), metrics_(metrics), stamps_(StampsNow()) {}

Status CredentialFiles::Reload() {
  stamps_ = StampsNow();  // before they are read: what changes meanwhile is read again
  StatusOr<CredentialTable> table = LoadCredentials(paths_);
  if (!table.ok()) {
    metrics_.OnCredentials(false);
    Log(LogLevel::kError, "credentials_refused",
        {{"why", std::string(table.status().message())},
         {"effect", "those read before stay in force"}});
    return table.status();
  }
  Log(LogLevel::kInfo, "credentials_loaded",
      {{"tenants", static_cast<int64_t>(table->tenants.num_tenants())},
       {"keys", static_cast<int64_t>(table->tenants.num_keys())},
       {"identities", static_cast<int64_t>(table->tenants.num_identities())}});
  credentials_.Replace(*std::move(table));
  metrics_.OnCredentials(true);  // who reads it finds them in force
  return absl::OkStatus();
}

void CredentialFiles::ReloadIfChanged() {
  if (StampsNow() != stamps_) Reload().IgnoreError();
}

CredentialFiles::Stamps CredentialFiles::StampsNow() const {
  return {StampOf(paths_.tenants), StampOf(paths_.admin_token), StampOf(paths_.metrics_token)};
}

}  // namespace polyad
