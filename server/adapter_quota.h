#pragma once

// Bounds the adapters that name a tenant by the size of their files, before a load reads them.
// Loads under way count too. Thread-safe; outlives its reservations. Errors: quota_error.h.

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/adapters/adapter_store.h"
#include "engine/base/status.h"
#include "server/adapter_registry.h"
#include "server/auth.h"

namespace polyad {

class AdapterQuota {
 public:
  // Held while a load runs; the registry knows the adapter after that.
  class Reservation {
   public:
    ~Reservation();
    Reservation(const Reservation&) = delete;
    Reservation& operator=(const Reservation&) = delete;

   private:
    friend class AdapterQuota;
    Reservation(AdapterQuota& quota, const LoadAdapterSpec& spec, int64_t bytes)
        : quota_(quota), name_(spec.name), tenants_(spec.allowed_tenants), bytes_(bytes) {}
    AdapterQuota& quota_;
    const std::string name_;
    const std::vector<std::string> tenants_;
    const int64_t bytes_;
  };

  // `bytes` of files; what the adapter would replace does not count.
  StatusOr<std::unique_ptr<Reservation>> Reserve(const LoadAdapterSpec& spec, int64_t bytes,
                                                 const Credentials& credentials,
                                                 const AdapterRegistry& registry);

 private:
  std::mutex mutex_;
  std::list<const Reservation*> loads_;  // guarded by mutex_
};

// Of the files that `uri` names inside `roots`; 0 where a load would not find them.
int64_t AdapterFileBytes(const std::string& uri, const std::vector<std::string>& roots);

}  // namespace polyad
