#include "server/tls/tls_files.h"

#include <ctime>
#include <string>

#include "engine/base/log.h"

namespace polyad {
namespace {

constexpr int64_t kSoonSeconds = int64_t{7} * 86'400;

void LogLoaded(const TlsMaterial& material) {
  const int64_t left_s = material.expires_unix_s() - static_cast<int64_t>(std::time(nullptr));
  Log(left_s < kSoonSeconds ? LogLevel::kWarning : LogLevel::kInfo, "tls_loaded",
      {{"expires_in_hours", left_s / 3600}, {"clients_ca", !material.client_ca_pem().empty()}});
}

}  // namespace

TlsFiles::TlsFiles(const TlsPaths& paths, TlsStore& store, Metrics& metrics)
    : paths_(paths), store_(store), metrics_(metrics), loaded_(StampsNow()), seen_(loaded_) {
  const auto material = store_.current().material;
  metrics_.SetTlsExpiry(material->expires_unix_s());
  LogLoaded(*material);
}

Status TlsFiles::Reload() {
  loaded_ = seen_ = StampsNow();  // before they are read: what changes meanwhile is read again
  StatusOr<std::shared_ptr<const TlsMaterial>> material = TlsMaterial::Load(paths_);
  if (!material.ok()) {
    metrics_.OnTlsReload(false);
    Log(LogLevel::kError, "tls_refused",
        {{"why", std::string(material.status().message())},
         {"effect", "the certificate read before stays in force"}});
    return material.status();
  }
  LogLoaded(**material);
  metrics_.SetTlsExpiry((*material)->expires_unix_s());
  store_.Replace(*std::move(material));
  metrics_.OnTlsReload(true);  // who reads it finds the new certificate
  return absl::OkStatus();
}

void TlsFiles::ReloadIfChanged() {
  const Stamps now = StampsNow();
  const bool settled = now == seen_;
  seen_ = now;
  if (settled && now != loaded_) Reload().IgnoreError();
}

TlsFiles::Stamps TlsFiles::StampsNow() const {
  return {StampOf(paths_.certificate), StampOf(paths_.key), StampOf(paths_.client_ca)};
}

}  // namespace polyad
