#pragma once

// A registry whose adapters, aliases and pins survive the process: what it answered OK is on disk
// (registry_journal.h), and so are the adapters' files (adapter_vault.h). At the start they are
// there again by name, version and digest, and each is read and verified when it is first asked
// for; pinned ones at once. Where a change cannot be recorded (the disk is full, or may only be
// read) what is loaded serves on; no other change is made before that one is recorded, which the
// next change tries first, so that disk and memory are never further apart than by one.
// Thread-safe.

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "server/adapter_registry.h"
#include "server/adapter_vault.h"
#include "server/registry_journal.h"

namespace polyad {

struct DurableOptions {
  std::string directory;  // made where there is none
  std::string model;      // the base model's name
  int64_t max_file_bytes = int64_t{2} << 30;
};

class DurableRegistry final : public AdapterRegistry {
 public:
  // Registers in `store` what the directory has. `roots`, `store` as for StoreRegistry.
  static StatusOr<std::unique_ptr<DurableRegistry>> Open(AdapterStore& store,
                                                         std::vector<std::string> roots,
                                                         const DurableOptions& options);

  // Aliases, and shares of kept versions. After the start-up's own adapters are there: they may be
  // about one of those.
  void RestoreRoutes();

  // INTERNAL or RESOURCE_EXHAUSTED where the change was made but could not be recorded yet, and,
  // saying so, where it was not made because the one before it is not recorded yet.
  StatusOr<LoadReport> Load(LoadAdapterSpec spec, const AdapterStore::Progress& progress) override;
  Status Unload(std::string_view name, bool force, int64_t wait_ms) override;
  Status UnloadVersion(std::string_view name, int64_t version, bool force,
                       int64_t wait_ms) override;
  Status ShiftTraffic(const TrafficShift& shift) override;
  Status Pin(std::string_view name, bool pinned) override;
  Status SetAlias(std::string_view alias, std::string_view target) override;

  StatusOr<AdapterInfo> Get(std::string_view name) const override { return live_.Get(name); }
  AdapterStore::Choice Choose(std::string_view reference, std::string_view tenant,
                              std::string_view session) const override {
    return live_.Choose(reference, tenant, session);
  }
  std::vector<AdapterInfo> List() const override { return live_.List(); }
  std::vector<AdapterSummary> Summaries() const override { return live_.Summaries(); }
  int64_t WaitForChange(int64_t seen, int64_t wait_ms) const override {
    return live_.WaitForChange(seen, wait_ms);
  }
  PrecisionBytes resident_bytes() const override { return live_.resident_bytes(); }
  AdapterStore::SwapCounts swap_counts() const override { return live_.swap_counts(); }
  RegistryHealth health() const override {
    return {true, write_failures_.load(), restore_failures_.load()};
  }

 private:
  DurableRegistry(AdapterStore& store, std::vector<std::string> roots,
                  const DurableOptions& options, AdapterVault vault, RegistryJournal journal)
      : store_(store),
        live_(store, roots),
        roots_(std::move(roots)),
        max_file_bytes_(options.max_file_bytes),
        vault_(std::move(vault)),
        journal_(std::move(journal)) {}
  void Restore();
  void RestoreOne(const state::v1::Loaded& adapter, bool kept);
  Status TryRestore(const state::v1::Loaded& adapter, bool kept);
  // Of a change that was made. Under the lock.
  Status Record(const state::v1::Record& record, std::string_view name);
  // Drops the folders of `name` that no adapter has after it. Under the lock.
  Status Write(const state::v1::Record& record, std::string_view name);
  // Records what Record could not; the status of a change that has to wait for it. Under the lock.
  Status Settle();
  StatusOr<LoadReport> InstallAndRecord(const LoadAdapterSpec& spec,
                                        const AdapterStore::Ready& ready);

  AdapterStore& store_;
  StoreRegistry live_;
  const std::vector<std::string> roots_;
  const int64_t max_file_bytes_;
  AdapterVault vault_;
  std::mutex mutex_;  // a change and its record
  RegistryJournal journal_;
  struct Unrecorded {
    state::v1::Record record;
    std::string name;
  };
  std::optional<Unrecorded> unrecorded_;  // a change that holds and is not on disk
  std::atomic<int64_t> write_failures_{0};
  std::atomic<int64_t> restore_failures_{0};
};

}  // namespace polyad
