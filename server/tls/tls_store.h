#pragma once

// The TLS material in force: what new connections begin with, for any thread. Connections that have
// begun keep what they began with.

#include <cstdint>
#include <memory>
#include <mutex>

#include "server/tls/tls_material.h"

namespace polyad {

class TlsStore {
 public:
  struct Current {
    std::shared_ptr<const TlsMaterial> material;
    uint64_t version = 0;  // grows with each Replace
  };

  explicit TlsStore(std::shared_ptr<const TlsMaterial> material)
      : current_{std::move(material), 1} {}

  Current current() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return current_;
  }
  void Replace(std::shared_ptr<const TlsMaterial> material) {
    std::lock_guard<std::mutex> lock(mutex_);
    current_.material.swap(material);  // the old one goes after the lock
    ++current_.version;
  }

 private:
  mutable std::mutex mutex_;
  Current current_;  // guarded by mutex_
};

}  // namespace polyad
