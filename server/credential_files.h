#pragma once

// The files that credentials come from, read at start-up and again whenever one of them has changed
// or a signal asks for it. What cannot be read or is not valid changes nothing: the credentials
// that were in force stay, and a log line and a metric say so until a good file comes. One thread.

#include <array>
#include <string>

#include "engine/base/status.h"
#include "server/auth.h"
#include "server/file_stamp.h"
#include "server/metrics.h"

namespace polyad {

struct CredentialPaths {  // empty: none
  std::string tenants;
  std::string admin_token;
  std::string metrics_token;
};

StatusOr<CredentialTable> LoadCredentials(const CredentialPaths& paths);

class CredentialFiles {
 public:
  // As `credentials` were loaded from `paths`; both outlive this.
  CredentialFiles(const CredentialPaths& paths, Credentials& credentials, Metrics& metrics);

  Status Reload();
  // Where a file has changed since it was read last.
  void ReloadIfChanged();

 private:
  using Stamps = std::array<FileStamp, 3>;
  Stamps StampsNow() const;

  const CredentialPaths paths_;
  Credentials& credentials_;
  Metrics& metrics_;
  Stamps stamps_;
};

}  // namespace polyad
