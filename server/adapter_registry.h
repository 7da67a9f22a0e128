#pragma once

// The adapters as the edge sees them: what the admin port and the HTTP routes may do, with where an
// adapter may come from decided here (a path inside an adapter root, nothing else). Thread-safe;
// Load and Unload block and belong on a worker. Errors are AdapterStore's; INVALID_ARGUMENT for a
// uri that leaves the roots.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/adapters/adapter_store.h"
#include "engine/base/status.h"

namespace polyad {

// What became of the registry on disk since start-up.
struct RegistryHealth {
  bool is_durable = false;       // there is a state directory
  int64_t write_failures = 0;    // changes made that will not survive the process
  int64_t restore_failures = 0;  // adapters, aliases and shares that a start could not bring back
};

class AdapterRegistry {
 public:
  virtual ~AdapterRegistry() = default;

  // `spec.path` is what the client named: relative to a root, or file:// inside one.
  virtual StatusOr<LoadReport> Load(LoadAdapterSpec spec,
                                    const AdapterStore::Progress& progress) = 0;
  virtual Status Unload(std::string_view name, bool force, int64_t wait_ms) = 0;
  // One kept version.
  virtual Status UnloadVersion(std::string_view name, int64_t version, bool force,
                               int64_t wait_ms) = 0;
  // Waits until the version is in memory.
  virtual Status ShiftTraffic(const TrafficShift& shift) = 0;
  virtual Status Pin(std::string_view name, bool pinned) = 0;
  virtual Status SetAlias(std::string_view alias, std::string_view target) = 0;
  virtual StatusOr<AdapterInfo> Get(std::string_view name) const = 0;
  virtual AdapterStore::Choice Choose(std::string_view reference, std::string_view tenant,
                                      std::string_view session) const = 0;
  virtual std::vector<AdapterInfo> List() const = 0;
  virtual std::vector<AdapterSummary> Summaries() const = 0;
  virtual int64_t WaitForChange(int64_t seen, int64_t wait_ms) const = 0;
  virtual PrecisionBytes resident_bytes() const = 0;
  virtual AdapterStore::SwapCounts swap_counts() const = 0;
  virtual RegistryHealth health() const { return {}; }
};

// The real one; `store` outlives it.
class StoreRegistry final : public AdapterRegistry {
 public:
  StoreRegistry(AdapterStore& store, std::vector<std::string> roots)
      : store_(store), roots_(std::move(roots)) {}

  StatusOr<LoadReport> Load(LoadAdapterSpec spec, const AdapterStore::Progress& progress) override;
  Status Unload(std::string_view name, bool force, int64_t wait_ms) override;
  Status UnloadVersion(std::string_view name, int64_t version, bool force,
                       int64_t wait_ms) override;
  Status ShiftTraffic(const TrafficShift& shift) override;
  Status Pin(std::string_view name, bool pinned) override;
  Status SetAlias(std::string_view alias, std::string_view target) override;
  StatusOr<AdapterInfo> Get(std::string_view name) const override;
  AdapterStore::Choice Choose(std::string_view reference, std::string_view tenant,
                              std::string_view session) const override;
  std::vector<AdapterInfo> List() const override;
  std::vector<AdapterSummary> Summaries() const override;
  int64_t WaitForChange(int64_t seen, int64_t wait_ms) const override;
  PrecisionBytes resident_bytes() const override;
  AdapterStore::SwapCounts swap_counts() const override;

 private:
  AdapterStore& store_;
  const std::vector<std::string> roots_;
};

// How long ShiftTraffic waits for its version to be read back.
inline constexpr int64_t kShiftWaitMs = 60'000;

// Where `uri` lies: the first root that holds it, and the path there. The loader walks it again
// without following links.
struct AdapterPlace {
  std::string root;
  std::string path;
};
StatusOr<AdapterPlace> ResolveAdapterUri(std::string_view uri,
                                         const std::vector<std::string>& roots);

}  // namespace polyad
