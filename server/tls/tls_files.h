#pragma once

// The TLS files, read again while serving when they have changed or a signal asks for it. What
// cannot be read or does not fit together changes nothing: a log line and a metric say so until
// good files come. One thread.

#include <array>

#include "engine/base/status.h"
#include "server/file_stamp.h"
#include "server/metrics.h"
#include "server/tls/tls_store.h"

namespace polyad {

class TlsFiles {
 public:
  // As `store` was loaded from `paths`; both outlive this.
  TlsFiles(const TlsPaths& paths, TlsStore& store, Metrics& metrics);

  Status Reload();
  // Where a file has changed since it was read last, and not since the last call: a certificate and
  // its key come one after the other.
  void ReloadIfChanged();

 private:
  using Stamps = std::array<FileStamp, 3>;
  Stamps StampsNow() const;

  const TlsPaths paths_;
  TlsStore& store_;
  Metrics& metrics_;
  Stamps loaded_;
  Stamps seen_;
};

}  // namespace polyad
