#include "engine/adapters/adapter_store.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "engine/adapters/adapter_loader.h"
#include "engine/base/adapter_name.h"

namespace polyad {
namespace {

// Ids of loaded versions count from 1, those of compositions from here: never equal.
constexpr int64_t kFirstCompositionId = int64_t{1} << 40;

Status CheckName(std::string_view name, const std::string& reserved) {
  if (!IsAdapterName(name)) {
    return InvalidArgument("name: expected [A-Za-z0-9][A-Za-z0-9._-]{0,127}, got %d bytes",
                           name.size());
  }
  if (name == reserved) {
    return InvalidArgument("name: '%s' is the base model's", reserved);
  }
  return absl::OkStatus();
}

}  // namespace

Status AdapterStore::UnknownAdapter(std::string_view reference) {
  return NotFound("adapter '%s': not loaded",
                  std::string(reference.substr(0, kMaxAdapterNameBytes)));
}

bool AdapterStore::TenantMay(const std::vector<std::string>& allowed, std::string_view tenant) {
  return allowed.empty() || std::find(allowed.begin(), allowed.end(), tenant) != allowed.end();
}

// Versions may outlive the store.
struct AdapterStore::LeaseSignal {
  std::mutex mutex;
  std::condition_variable ended;
  std::function<void(const AdapterVersion&)> hook;

  void Tell(std::shared_ptr<const AdapterVersion> version) {
    {
      std::lock_guard<std::mutex> lock(mutex);
      if (hook) hook(*version);
    }
    version.reset();
    std::lock_guard<std::mutex> lock(mutex);
    ended.notify_all();
  }
};

AdapterStore::AdapterStore(const ModelSpec& spec, Backend& backend, AdapterStoreOptions options)
    : spec_(spec),
      backend_(backend),
      options_(std::move(options)),
      signal_(std::make_shared<LeaseSignal>()),
      compositions_(spec.num_layers, kFirstCompositionId) {}

AdapterStore::~AdapterStore() = default;

Status AdapterStore::CheckMayInstall(const LoadAdapterSpec& spec) const {
  const auto serving = entries_.find(spec.name);
  const int64_t version = serving == entries_.end() ? 0 : serving->second.report.version;
  if (spec.expected_version && *spec.expected_version != version) {
    return FailedPrecondition("adapter '%s': expected version %d to be serving, got %d", spec.name,
                              *spec.expected_version, version);
  }
  if (spec.share && serving == entries_.end()) {
    return FailedPrecondition("adapter '%s': no version serves beside which it could stand",
                              spec.name);
  }
  if (serving != entries_.end() && !spec.replace && !spec.share) {
    return AlreadyExists("adapter '%s': version %d is serving; set replace to swap it", spec.name,
                         version);
  }
  if (aliases_.count(spec.name) > 0) {
    return AlreadyExists("adapter '%s': the name is an alias", spec.name);
  }
  const bool adds = serving == entries_.end() || spec.share || spec.keep_previous;
  if (adds && static_cast<int64_t>(entries_.size()) >= options_.max_adapters) {
    return ResourceExhausted("adapter '%s': %d adapters are loaded, the limit is %d", spec.name,
                             entries_.size(), options_.max_adapters);
  }
  return absl::OkStatus();
}

StatusOr<AdapterVersion::Identity> AdapterStore::Reserve(const LoadAdapterSpec& spec) {
  std::lock_guard<std::mutex> lock(mutex_);
  POLYAD_RETURN_IF_ERROR(CheckMayInstall(spec));
  AdapterVersion::Identity identity;
  identity.id = AdapterVersionId(next_id_++);
  identity.name = spec.name;
  identity.version = ++last_version_[spec.name];
  return identity;
}

StatusOr<LoadReport> AdapterStore::Load(const LoadAdapterSpec& spec, const Progress& progress) {
  POLYAD_ASSIGN_OR_RETURN(const Ready ready, ReadNew(spec, progress));
  POLYAD_ASSIGN_OR_RETURN(LoadReport report, Install(spec, ready));
  if (progress) progress(LoadState::kResident);
  return report;
}

StatusOr<AdapterStore::Ready> AdapterStore::ReadNew(const LoadAdapterSpec& spec,
                                                    const Progress& progress) {
  const auto start = std::chrono::steady_clock::now();
  POLYAD_RETURN_IF_ERROR(CheckName(spec.name, options_.reserved_name));
  POLYAD_ASSIGN_OR_RETURN(const AdapterVersion::Identity identity, Reserve(spec));
  // fp32 files shrink to half when packed as bf16, so twice the room there may be bounds what is
  // worth reading.
  std::shared_ptr<MemoryCharge> charge;
  int64_t room = 0;
  if (options_.memory != nullptr) {
    charge = std::make_shared<MemoryCharge>(options_.memory, 0);
    room = options_.memory->max_adapter_pages() * MemoryLedger::kPageBytes;
  } else {
    std::lock_guard<std::mutex> lock(mutex_);
    room = options_.max_bytes - ResidentBytesLocked().total() + IdleBytesLocked();
  }
  if (room <= 0) {
    return ResourceExhausted("adapter '%s': the adapter budget of %d bytes is used up", spec.name,
                             options_.max_bytes);
  }
  POLYAD_ASSIGN_OR_RETURN(
      LoadedAdapter loaded, PackInto(charge, spec.name, 0, [&] {
        return LoadAdapter(ContextFor(spec, room), {spec.root, spec.path}, identity, progress);
      }));
  charge.reset();  // the version has it
  if (!spec.expected_digest.empty() && spec.expected_digest != loaded.report.digest) {
    return FailedPrecondition("adapter '%s': expected digest %s, got %s", spec.name,
                              spec.expected_digest, loaded.report.digest);
  }
  Prepare(loaded.version);
  const std::chrono::duration<double, std::milli> elapsed =
      std::chrono::steady_clock::now() - start;
  loaded.report.load_ms = elapsed.count();
  return std::make_shared<LoadedAdapter>(std::move(loaded));
}

LoaderContext AdapterStore::ContextFor(const LoadAdapterSpec& spec, int64_t room) const {
  return {{spec_, options_.base.get(), spec.options, options_.max_context},
          backend_,
          std::min(options_.max_file_bytes, 2 * room)};
}

void AdapterStore::Prepare(const Lease& version) {
  std::function<void(const Lease&)> prepare;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    prepare = hooks_.prepare;
  }
  if (prepare) prepare(version);
}

StatusOr<LoadReport> AdapterStore::Install(const LoadAdapterSpec& spec, const Ready& ready) {
  Entry entry;
  entry.identity = ready->version->identity();
  entry.report = ready->report;
  entry.pages = ready->pages;
  entry.lease = LeaseOf(std::move(*ready));
  entry.watch = entry.lease;
  entry.source = spec;
  entry.pinned = spec.pinned;
  entry.allowed_tenants = spec.allowed_tenants;

  std::lock_guard<std::mutex> lock(mutex_);
  POLYAD_RETURN_IF_ERROR(CheckMayInstall(spec));  // again: others loaded meanwhile
  int64_t& newest = newest_[spec.name];
  if (newest > entry.report.version) {
    return Aborted("adapter '%s': version %d was loaded while version %d was read", spec.name,
                   newest, entry.report.version);
  }
  if (const int64_t wanted = entry.report.resident_bytes.total();
      options_.memory == nullptr && MakeRoomLocked({wanted}) != Room::kMade) {
    return ResourceExhausted("adapter '%s': needs %d bytes, the adapter budget has %d of %d left",
                             spec.name, wanted, options_.max_bytes - ResidentBytesLocked().total(),
                             options_.max_bytes);
  }
  newest = entry.report.version;
  LoadReport report = entry.report;
  const auto serving = entries_.find(spec.name);
  if (!spec.share && serving != entries_.end()) {
    if (spec.keep_previous) {
      RekeyLocked(spec.name, KeptKey(spec.name, serving->second.report.version));
    } else {
      RetireLocked(serving->second);
      entries_.erase(serving);
    }
  }
  if (spec.share && *spec.share > 0) {
    splits_.insert_or_assign(spec.name, TrafficSplit{report.version, *spec.share});
  }
  const std::string key = spec.share ? KeptKey(spec.name, report.version) : spec.name;
  EnterLocked(entries_.emplace(key, std::move(entry)).first->second);
  CountFloorLocked();
  ++change_counter_;
  changed_.notify_all();
  return report;
}

// The deleter runs when the last lease ends, on whichever thread held it.
AdapterStore::Lease AdapterStore::LeaseOf(LoadedAdapter loaded) const {
  const AdapterVersion* version = loaded.version.get();
  return Lease(version, [owned = std::move(loaded.version), signal = signal_](
                            const AdapterVersion*) mutable { signal->Tell(std::move(owned)); });
}

void AdapterStore::RetireLocked(Entry& entry) {
  if (entry.lease != nullptr) LeaveLocked(entry);
  entry.lease.reset();
  retired_.push_back(std::move(entry));
  std::erase_if(retired_, [](const Entry& old) { return old.watch.expired(); });
}

Status AdapterStore::AwaitEnd(const Retired& retired, int64_t wait_ms) {
  std::unique_lock<std::mutex> lock(signal_->mutex);
  const bool ended = signal_->ended.wait_for(lock, std::chrono::milliseconds(wait_ms), [&] {
    return std::all_of(retired.watches.begin(), retired.watches.end(),
                       [](const auto& one) { return one.expired(); });
  });
  if (ended) return absl::OkStatus();
  return DeadlineExceeded("adapter '%s': unloaded, but requests still hold it after %d ms",
                          retired.name, wait_ms);
}

Status AdapterStore::Unload(std::string_view name, bool force, int64_t wait_ms) {
  POLYAD_ASSIGN_OR_RETURN(const Retired retired, Retire(name, force));
  return AwaitEnd(retired, wait_ms);
}

Status AdapterStore::Restore(const LoadAdapterSpec& spec, const LoadReport& report) {
  POLYAD_RETURN_IF_ERROR(CheckName(spec.name, options_.reserved_name));
  const std::optional<Digest> digest = DigestFromHex(report.digest);
  if (!digest || report.version < 1) {
    return InvalidArgument("adapter '%s': expected a version and its digest", spec.name);
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (!spec.share) POLYAD_RETURN_IF_ERROR(CheckMayInstall(spec));
  Entry entry;
  entry.identity.id = AdapterVersionId(next_id_++);
  entry.identity.name = spec.name;
  entry.identity.version = report.version;
  entry.identity.digest = *digest;
  entry.source = spec;
  entry.report = report;
  entry.pinned = spec.pinned;
  entry.allowed_tenants = spec.allowed_tenants;
  int64_t& last = last_version_[spec.name];
  last = std::max(last, report.version);
  entries_.emplace(spec.share ? KeptKey(spec.name, report.version) : spec.name, std::move(entry));
  CountFloorLocked();
  ++change_counter_;
  changed_.notify_all();
  return absl::OkStatus();
}

void AdapterStore::SkipVersions(std::string_view name, int64_t version) {
  std::lock_guard<std::mutex> lock(mutex_);
  int64_t& last = last_version_[std::string(name)];
  last = std::max(last, version);
}

void AdapterStore::SetHooks(Hooks hooks) {
  {
    std::lock_guard<std::mutex> lock(signal_->mutex);
    signal_->hook = std::move(hooks.ended);
  }
  std::lock_guard<std::mutex> lock(mutex_);
  hooks_ = std::move(hooks);
}

StatusOr<AdapterStore::Lease> AdapterStore::Acquire(std::string_view reference,
                                                    std::string_view tenant) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return AcquireLocked(reference, tenant);
}

std::string AdapterStore::KeyOfLocked(std::string_view reference, std::string_view tenant) const {
  const size_t at = std::min(reference.find('@'), reference.size());
  std::string_view name = reference.substr(0, at);
  const auto alias = aliases_.find(name);
  if (alias != aliases_.end()) name = alias->second;
  auto found = entries_.end();
  if (at < reference.size()) found = entries_.find(std::string(name).append(reference.substr(at)));
  if (found == entries_.end()) found = entries_.find(name);
  const bool may = found != entries_.end() && TenantMay(found->second.allowed_tenants, tenant);
  return may ? found->first : "";
}

StatusOr<AdapterStore::Lease> AdapterStore::AcquireLocked(std::string_view reference,
                                                          std::string_view tenant) const {
  const std::string key = KeyOfLocked(reference, tenant);
  if (key.empty()) return UnknownAdapter(reference);
  const Entry& entry = entries_.find(key)->second;
  const std::string& name = entry.report.name;
  const size_t at = reference.find('@');
  const auto is_asked_for = [&](const Entry& one) {
    return at == std::string_view::npos ||
           reference.substr(at + 1) == std::to_string(one.report.version);
  };
  if (is_asked_for(entry)) {
    if (entry.lease == nullptr) return Unavailable("adapter '%s': swapped out", name);
    UseLocked(entry);
    return entry.lease;
  }
  for (const Entry& retired : retired_) {  // an older version lives as long as somebody uses it
    if (retired.report.name != name || !is_asked_for(retired) ||
        !TenantMay(retired.allowed_tenants, tenant)) {
      continue;
    }
    if (Lease lease = retired.watch.lock()) return lease;
  }
  return UnknownAdapter(reference);
}

bool AdapterStore::IsSwappedOut(std::string_view reference, std::string_view tenant) const {
  return absl::IsUnavailable(Acquire(reference, tenant).status());
}

StatusOr<AdapterStore::Lease> AdapterStore::AcquireForNew(std::string_view reference,
                                                          std::string_view tenant) const {
  std::lock_guard<std::mutex> lock(mutex_);
  StatusOr<Lease> lease = AcquireLocked(reference, tenant);
  if (!lease.ok() || !some_give_way_) return lease;
  const auto found = entries_.find(KeyOfLocked(reference, tenant));
  const bool gives_way =
      found != entries_.end() && found->second.gives_way && found->second.lease == *lease;
  return gives_way ? Unavailable("adapter '%s': gives way", found->first) : std::move(lease);
}

StatusOr<AdapterStore::Lease> AdapterStore::Compose(const std::vector<AdapterUse>& uses,
                                                    std::string_view tenant) {
  std::vector<CompositionPart> parts;
  for (const AdapterUse& use : uses) {
    POLYAD_ASSIGN_OR_RETURN(Lease lease, Acquire(use.name, tenant));
    parts.push_back({std::move(lease), use.scale});
  }
  return compositions_.Get(parts);
}

Status AdapterStore::Pin(std::string_view name, bool pinned) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(name);
  if (found == entries_.end()) return UnknownAdapter(name);
  found->second.pinned = pinned;
  ++change_counter_;
  changed_.notify_all();
  return absl::OkStatus();
}

Status AdapterStore::SetAlias(std::string_view alias, std::string_view target) {
  POLYAD_RETURN_IF_ERROR(CheckName(alias, options_.reserved_name));
  std::lock_guard<std::mutex> lock(mutex_);
  if (entries_.find(alias) != entries_.end()) {
    return AlreadyExists("alias '%s': an adapter has this name", std::string(alias));
  }
  if (target.empty()) {
    const auto found = aliases_.find(alias);
    if (found == aliases_.end()) return UnknownAdapter(alias);
    aliases_.erase(found);
  } else {
    if (entries_.find(target) == entries_.end()) return UnknownAdapter(target);
    if (static_cast<int64_t>(aliases_.size()) >= options_.max_aliases &&
        aliases_.find(alias) == aliases_.end()) {
      return ResourceExhausted("alias '%s': %d aliases are set, the limit is %d",
                               std::string(alias), aliases_.size(), options_.max_aliases);
    }
    aliases_.insert_or_assign(std::string(alias), std::string(target));
  }
  ++change_counter_;
  changed_.notify_all();
  return absl::OkStatus();
}

AdapterInfo AdapterStore::InfoOf(const Entry& entry, bool retired) const {
  AdapterInfo info;
  info.report = entry.report;
  info.pinned = entry.pinned;
  info.retired = retired;
  info.resident = retired || entry.lease != nullptr;
  const auto serving = entries_.find(entry.report.name);
  info.kept = !retired && (serving == entries_.end() || &serving->second != &entry);
  const auto split = splits_.find(entry.report.name);
  const double others = split == splits_.end() ? 0 : split->second.share;
  info.share = retired || info.kept ? 0 : 1 - others;
  if (info.kept && others > 0 && split->second.version == entry.report.version) {
    info.share = others;
  }
  info.num_leases = entry.watch.use_count() - (entry.lease == nullptr ? 0 : 1);
  info.allowed_tenants = entry.allowed_tenants;
  info.defaults = entry.source.defaults;
  if (!info.retired && !info.kept) {
    for (const auto& [alias, target] : aliases_) {
      if (target == entry.report.name) info.aliases.push_back(alias);
    }
  }
  return info;
}

StatusOr<AdapterInfo> AdapterStore::Get(std::string_view name) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto alias = aliases_.find(name);
  const auto found = entries_.find(alias == aliases_.end() ? name : alias->second);
  if (found == entries_.end()) return UnknownAdapter(name);
  return InfoOf(found->second, /*retired=*/false);
}

std::vector<AdapterInfo> AdapterStore::List() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<AdapterInfo> infos;
  for (const auto& [name, entry] : entries_) infos.push_back(InfoOf(entry, /*retired=*/false));
  for (const Entry& entry : retired_) {
    if (!entry.watch.expired()) infos.push_back(InfoOf(entry, /*retired=*/true));
  }
  return infos;
}

std::vector<AdapterSummary> AdapterStore::Summaries() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<AdapterSummary> summaries;
  summaries.reserve(entries_.size() + retired_.size());
  for (const auto& [key, entry] : entries_) {
    const LoadReport& report = entry.report;
    summaries.push_back({report.name, report.family, key == report.name, entry.lease != nullptr});
  }
  for (const Entry& entry : retired_) {
    if (entry.watch.expired()) continue;
    summaries.push_back({entry.report.name, entry.report.family, false, true});
  }
  return summaries;
}

int64_t AdapterStore::WaitForChange(int64_t seen, int64_t wait_ms) const {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(wait_ms),
                    [this, seen] { return change_counter_ != seen; });
  return change_counter_;
}

AdapterStore::SwapCounts AdapterStore::swap_counts() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return swap_counts_;
}

PrecisionBytes AdapterStore::resident_bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return ResidentBytesLocked();
}

}  // namespace polyad
