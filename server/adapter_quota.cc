#include "server/adapter_quota.h"

#include <algorithm>
#include <filesystem>

#include "engine/io/file.h"
#include "server/quota_error.h"

namespace polyad {
namespace {

constexpr int64_t kRetryMs = 60'000;  // somebody has to unload something
constexpr int kMaxFiles = 256;

bool Names(const std::vector<std::string>& tenants, const std::string& tenant) {
  return std::find(tenants.begin(), tenants.end(), tenant) != tenants.end();
}

}  // namespace

AdapterQuota::Reservation::~Reservation() {
  std::lock_guard<std::mutex> lock(quota_.mutex_);
  quota_.loads_.remove(this);
}

StatusOr<std::unique_ptr<AdapterQuota::Reservation>> AdapterQuota::Reserve(
    const LoadAdapterSpec& spec, int64_t bytes, const Credentials& credentials,
    const AdapterRegistry& registry) {
  const std::vector<AdapterInfo> adapters = registry.List();
  std::unique_ptr<Reservation> reservation(new Reservation(*this, spec, bytes));
  std::lock_guard<std::mutex> lock(mutex_);
  for (const std::string& tenant : spec.allowed_tenants) {
    const StatusOr<TenantLimits> limits = credentials.LimitsOf(tenant);
    if (!limits.ok() || limits->max_adapter_mib == 0) continue;  // or one that is to come
    int64_t held = 0;
    const bool stays = spec.keep_previous || spec.share;  // what serves the name now
    for (const AdapterInfo& adapter : adapters) {
      const bool goes = adapter.report.name == spec.name && !adapter.kept && !stays;
      const bool counts = !goes && !adapter.retired;
      if (counts && Names(adapter.allowed_tenants, tenant)) held += adapter.report.file_bytes;
    }
    for (const Reservation* load : loads_) {
      if (load->name_ != spec.name && Names(load->tenants_, tenant)) held += load->bytes_;
    }
    if (held + bytes <= limits->max_adapter_mib << 20) continue;
    return QuotaError(
        "max_adapter_mib",
        absl::StrFormat("at most %d MiB of files for tenant '%s'", limits->max_adapter_mib, tenant),
        absl::StrFormat("%d bytes with this adapter's %d", held + bytes, bytes), kRetryMs);
  }
  loads_.push_back(reservation.get());
  return reservation;
}

int64_t AdapterFileBytes(const std::string& uri, const std::vector<std::string>& roots) {
  const StatusOr<AdapterPlace> place = ResolveAdapterUri(uri, roots);
  if (!place.ok()) return 0;
  const StatusOr<std::string> path = ResolveBeneath(place->root, place->path);
  if (!path.ok()) return 0;
  std::error_code error;
  int64_t bytes = 0;
  int num_files = 0;
  std::filesystem::directory_iterator entry(*path, error);
  for (; !error && entry != std::filesystem::directory_iterator() && num_files < kMaxFiles;
       entry.increment(error), ++num_files) {
    if (!entry->is_regular_file(error) || error) continue;
    const auto size = entry->file_size(error);
    if (!error) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

}  // namespace polyad
