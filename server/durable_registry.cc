#include "server/durable_registry.h"

#include <set>
#include <utility>

#include "engine/base/log.h"
#include "engine/io/durable_file.h"
#include "server/adapter_codec.h"
#include "server/adapter_defaults.h"

namespace polyad {
namespace {

constexpr int64_t kPinnedWaitMs = 60'000;

StatusOr<LoadAdapterSpec> SpecOf(const state::v1::Loaded& adapter, const std::string& root) {
  LoadAdapterSpec spec;
  spec.name = adapter.report().name();
  spec.root = root;
  spec.path = adapter.folder();
  spec.pinned = adapter.pinned();
  spec.allowed_tenants.assign(adapter.allowed_tenants().begin(), adapter.allowed_tenants().end());
  for (const auto& [key, value] : adapter.options()) spec.options[key] = value;
  if (adapter.has_defaults()) {
    POLYAD_ASSIGN_OR_RETURN(spec.defaults, MakeAdapterDefaults(adapter.defaults()));
  }
  return spec;
}

state::v1::Record RecordOf(const LoadAdapterSpec& spec, const LoadReport& report) {
  state::v1::Record record;
  state::v1::Loaded& loaded = *record.mutable_loaded();
  EncodeLoadReport(report, *loaded.mutable_report());
  loaded.set_folder(spec.path);
  loaded.set_pinned(spec.pinned);
  for (const std::string& tenant : spec.allowed_tenants) loaded.add_allowed_tenants(tenant);
  for (const auto& [key, value] : spec.options) (*loaded.mutable_options())[key] = value;
  if (spec.defaults != nullptr) *loaded.mutable_defaults() = spec.defaults->message;
  if (!spec.keep_previous && !spec.share) return record;
  state::v1::Record beside;
  *beside.mutable_beside()->mutable_loaded() = std::move(loaded);
  beside.mutable_beside()->set_serves(!spec.share);
  beside.mutable_beside()->set_share(spec.share.value_or(0));
  return beside;
}

}  // namespace

StatusOr<std::unique_ptr<DurableRegistry>> DurableRegistry::Open(AdapterStore& store,
                                                                 std::vector<std::string> roots,
                                                                 const DurableOptions& options) {
  POLYAD_RETURN_IF_ERROR(CreateDirectories(options.directory));
  POLYAD_ASSIGN_OR_RETURN(RegistryJournal journal,
                          RegistryJournal::Open(options.directory, options.model));
  POLYAD_ASSIGN_OR_RETURN(AdapterVault vault, AdapterVault::Open(options.directory));
  std::unique_ptr<DurableRegistry> registry(
      new DurableRegistry(store, std::move(roots), options, std::move(vault), std::move(journal)));
  registry->Restore();
  return registry;
}

void DurableRegistry::Restore() {
  const RegistryState& state = journal_.state();
  std::set<std::string> folders;
  for (const auto& [name, version] : state.last_version) store_.SkipVersions(name, version);
  for (const auto& [name, version] : state.last_kept) store_.SkipVersions(name, version);
  for (const auto& [name, adapter] : state.adapters) {
    folders.insert(adapter.folder());
    RestoreOne(adapter, /*kept=*/false);
  }
  for (const auto& [key, adapter] : state.kept) {
    folders.insert(adapter.folder());
    RestoreOne(adapter, /*kept=*/true);
  }
  const int64_t dropped = vault_.DropAllBut(folders);
  Log(LogLevel::kInfo, "registry_restored",
      {{"adapters", static_cast<int64_t>(state.adapters.size() + state.kept.size())},
       {"aliases", static_cast<int64_t>(state.aliases.size())},
       {"unfinished_loads", dropped}});
}

void DurableRegistry::RestoreRoutes() {
  for (const auto& [name, split] : journal_.state().splits) {
    const Status set = store_.ShiftTraffic({name, split.version, split.share, std::nullopt});
    if (set.ok()) continue;
    ++restore_failures_;
    Log(LogLevel::kError, "split_not_restored",
        {{"name", name}, {"version", split.version}, {"error", set.ToString()}});
  }
  for (const auto& [alias, target] : journal_.state().aliases) {
    if (const Status set = store_.SetAlias(alias, target); !set.ok()) {
      ++restore_failures_;
      Log(LogLevel::kError, "alias_not_restored",
          {{"alias", alias}, {"target", target}, {"error", set.ToString()}});
    }
  }
}

// One that cannot be restored keeps its record and its files, and is named in the log.
void DurableRegistry::RestoreOne(const state::v1::Loaded& adapter, bool kept) {
  const v1::LoadReport& report = adapter.report();
  const Status restored = TryRestore(adapter, kept);
  if (restored.ok()) return;
  ++restore_failures_;
  store_.SkipVersions(report.name(), report.version());  // its record's stays the last one
  Log(LogLevel::kError, "adapter_not_restored",
      {{"name", report.name()}, {"folder", adapter.folder()}, {"error", restored.ToString()}});
}

Status DurableRegistry::TryRestore(const state::v1::Loaded& adapter, bool kept) {
  if (!vault_.Holds(adapter.folder())) return DataLoss("its files are not there");
  POLYAD_ASSIGN_OR_RETURN(LoadAdapterSpec spec, SpecOf(adapter, vault_.root()));
  if (kept) spec.share = 0;
  POLYAD_RETURN_IF_ERROR(store_.Restore(spec, DecodeLoadReport(adapter.report())));
  if (!spec.pinned) return absl::OkStatus();
  return store_.AcquireVersion(spec.name, adapter.report().version(), kPinnedWaitMs).status();
}

Status DurableRegistry::Write(const state::v1::Record& record, std::string_view name) {
  const std::set<std::string> before = journal_.state().FoldersOf(name);
  const Status status = journal_.Append(record);
  if (!status.ok()) {
    Log(LogLevel::kError, "registry_not_written", {{"error", status.ToString()}});
    return status;
  }
  const std::set<std::string> after = journal_.state().FoldersOf(name);
  for (const std::string& folder : before) {
    if (!after.contains(folder)) vault_.Drop(folder);
  }
  return status;
}

Status DurableRegistry::Record(const state::v1::Record& record, std::string_view name) {
  const Status status = Write(record, name);
  if (status.ok()) return status;
  ++write_failures_;
  if (record.ByteSizeLong() > RegistryJournal::kMaxRecordBytes) {  // no room will ever do
    return Annotate(status, "the change was made, but will not survive this process");
  }
  unrecorded_ = Unrecorded{record, std::string(name)};
  return Annotate(status, "the change was made, and will be recorded before any other");
}

Status DurableRegistry::Settle() {
  if (!unrecorded_) return absl::OkStatus();
  const Status late = Write(unrecorded_->record, unrecorded_->name);
  if (!late.ok()) return Annotate(late, "nothing was changed: the last change is not recorded yet");
  unrecorded_.reset();
  Log(LogLevel::kWarning, "registry_written_again");
  return absl::OkStatus();
}

StatusOr<LoadReport> DurableRegistry::Load(LoadAdapterSpec spec,
                                           const AdapterStore::Progress& progress) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    POLYAD_RETURN_IF_ERROR(Settle());  // before the work
  }
  POLYAD_ASSIGN_OR_RETURN(const AdapterPlace place, ResolveAdapterUri(spec.path, roots_));
  POLYAD_ASSIGN_OR_RETURN(const Directory from, Directory::OpenBeneath(place.root, place.path));
  POLYAD_ASSIGN_OR_RETURN(spec.path, vault_.Take(from, max_file_bytes_));
  spec.root = vault_.root();
  const auto ready = store_.ReadNew(spec, progress);
  if (!ready.ok()) {
    vault_.Drop(spec.path);
    return ready.status();
  }
  StatusOr<LoadReport> report = InstallAndRecord(spec, *ready);
  if (report.ok() && progress) progress(LoadState::kResident);
  return report;
}

StatusOr<LoadReport> DurableRegistry::InstallAndRecord(const LoadAdapterSpec& spec,
                                                       const AdapterStore::Ready& ready) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Status settled = Settle();
  StatusOr<LoadReport> report =
      settled.ok() ? store_.Install(spec, ready) : StatusOr<LoadReport>(settled);
  if (!report.ok()) {
    vault_.Drop(spec.path);
    return report;
  }
  POLYAD_RETURN_IF_ERROR(Record(RecordOf(spec, *report), spec.name));
  return report;
}

Status DurableRegistry::Unload(std::string_view name, bool force, int64_t wait_ms) {
  AdapterStore::Retired retired;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    POLYAD_RETURN_IF_ERROR(Settle());
    POLYAD_ASSIGN_OR_RETURN(retired, store_.Retire(name, force));
    state::v1::Record record;
    record.mutable_unloaded()->set_name(retired.name);
    record.mutable_unloaded()->set_version(retired.version);
    POLYAD_RETURN_IF_ERROR(Record(record, name));
  }
  return store_.AwaitEnd(retired, wait_ms);
}

Status DurableRegistry::UnloadVersion(std::string_view name, int64_t version, bool force,
                                      int64_t wait_ms) {
  AdapterStore::Retired retired;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    POLYAD_RETURN_IF_ERROR(Settle());
    POLYAD_ASSIGN_OR_RETURN(retired, store_.RetireKept(name, version, force));
    state::v1::Record record;
    record.mutable_unloaded_version()->set_name(retired.name);
    record.mutable_unloaded_version()->set_version(version);
    POLYAD_RETURN_IF_ERROR(Record(record, name));
  }
  return store_.AwaitEnd(retired, wait_ms);
}

Status DurableRegistry::ShiftTraffic(const TrafficShift& shift) {
  POLYAD_ASSIGN_OR_RETURN(const AdapterStore::Lease lease,
                          store_.AcquireVersion(shift.name, shift.version, kShiftWaitMs));
  std::lock_guard<std::mutex> lock(mutex_);
  POLYAD_RETURN_IF_ERROR(Settle());
  POLYAD_RETURN_IF_ERROR(store_.ShiftTraffic(shift));
  state::v1::Record record;
  record.mutable_traffic()->set_name(shift.name);
  record.mutable_traffic()->set_version(shift.version);
  record.mutable_traffic()->set_share(shift.share);
  return Record(record, shift.name);
}

Status DurableRegistry::Pin(std::string_view name, bool pinned) {
  std::lock_guard<std::mutex> lock(mutex_);
  POLYAD_RETURN_IF_ERROR(Settle());
  POLYAD_RETURN_IF_ERROR(store_.Pin(name, pinned));
  state::v1::Record record;
  record.mutable_pinned()->set_name(std::string(name));
  record.mutable_pinned()->set_pinned(pinned);
  return Record(record, name);
}

Status DurableRegistry::SetAlias(std::string_view alias, std::string_view target) {
  std::lock_guard<std::mutex> lock(mutex_);
  POLYAD_RETURN_IF_ERROR(Settle());
  POLYAD_RETURN_IF_ERROR(store_.SetAlias(alias, target));
  state::v1::Record record;
  record.mutable_alias()->set_alias(std::string(alias));
  record.mutable_alias()->set_target(std::string(target));
  return Record(record, target);
}

}  // namespace polyad
