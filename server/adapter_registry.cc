#include "server/adapter_registry.h"

#include "engine/io/file.h"
#include "server/field_error.h"

namespace polyad {

StatusOr<AdapterPlace> ResolveAdapterUri(std::string_view uri,
                                         const std::vector<std::string>& roots) {
  constexpr std::string_view kFile = "file://";
  constexpr std::string_view kExpected = "a path inside an adapter root";
  std::string_view path = uri;
  if (path.starts_with(kFile)) {
    path.remove_prefix(kFile.size());
    if (!path.starts_with('/')) return FieldError("uri", kExpected, uri);
  } else if (path.find("://") != std::string_view::npos) {
    return FieldError("uri", kExpected, uri);
  }
  if (roots.empty()) {
    return FailedPrecondition("uri: the server has no adapter root (--adapter-root)");
  }
  Status last = NotFound("uri: no adapter root holds it");
  for (const std::string& root : roots) {
    const auto resolved = ResolveBeneath(root, std::string(path));
    if (resolved.ok()) return AdapterPlace{root, std::string(path)};
    if (resolved.status().code() != absl::StatusCode::kNotFound) last = resolved.status();
  }
  if (last.code() == absl::StatusCode::kInvalidArgument) return FieldError("uri", kExpected, uri);
  return last;
}

StatusOr<LoadReport> StoreRegistry::Load(LoadAdapterSpec spec,
                                         const AdapterStore::Progress& progress) {
  POLYAD_ASSIGN_OR_RETURN(AdapterPlace place, ResolveAdapterUri(spec.path, roots_));
  spec.root = std::move(place.root);
  spec.path = std::move(place.path);
  return store_.Load(spec, progress);
}

Status StoreRegistry::Unload(std::string_view name, bool force, int64_t wait_ms) {
  return store_.Unload(name, force, wait_ms);
}

Status StoreRegistry::UnloadVersion(std::string_view name, int64_t version, bool force,
                                    int64_t wait_ms) {
  POLYAD_ASSIGN_OR_RETURN(const AdapterStore::Retired retired,
                          store_.RetireKept(name, version, force));
  return store_.AwaitEnd(retired, wait_ms);
}

Status StoreRegistry::ShiftTraffic(const TrafficShift& shift) {
  POLYAD_ASSIGN_OR_RETURN(const AdapterStore::Lease lease,
                          store_.AcquireVersion(shift.name, shift.version, kShiftWaitMs));
  return store_.ShiftTraffic(shift);
}

Status StoreRegistry::Pin(std::string_view name, bool pinned) { return store_.Pin(name, pinned); }

Status StoreRegistry::SetAlias(std::string_view alias, std::string_view target) {
  return store_.SetAlias(alias, target);
}

StatusOr<AdapterInfo> StoreRegistry::Get(std::string_view name) const { return store_.Get(name); }

AdapterStore::Choice StoreRegistry::Choose(std::string_view reference, std::string_view tenant,
                                           std::string_view session) const {
  return store_.Choose(reference, tenant, session);
}

std::vector<AdapterInfo> StoreRegistry::List() const { return store_.List(); }

std::vector<AdapterSummary> StoreRegistry::Summaries() const { return store_.Summaries(); }

int64_t StoreRegistry::WaitForChange(int64_t seen, int64_t wait_ms) const {
  return store_.WaitForChange(seen, wait_ms);
}

AdapterStore::SwapCounts StoreRegistry::swap_counts() const { return store_.swap_counts(); }
PrecisionBytes StoreRegistry::resident_bytes() const { return store_.resident_bytes(); }

}  // namespace polyad
