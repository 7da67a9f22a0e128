// Of adapter_store.h what is about several versions of one name: which one a request has, how they
// come to serve, and how they go.

#include <algorithm>

#include "engine/adapters/adapter_store.h"

namespace polyad {

// Where it is now: a shift moves it between its name and its kept place.
AdapterStore::Entry* AdapterStore::FindLocked(const AdapterVersion::Identity& identity) {
  for (const std::string& key : {identity.name, KeptKey(identity.name, identity.version)}) {
    const auto found = entries_.find(key);
    if (found != entries_.end() && found->second.identity.id == identity.id) return &found->second;
  }
  return nullptr;
}

void AdapterStore::RekeyLocked(const std::string& from, const std::string& to) {
  auto node = entries_.extract(from);
  node.key() = to;
  entries_.insert(std::move(node));
}

void AdapterStore::EraseLocked(const std::string& key, Retired& retired,
                               std::vector<AdapterVersionId>& ids) {
  const auto found = entries_.find(key);
  retired.version = std::max(retired.version, found->second.report.version);
  retired.watches.push_back(found->second.watch);
  ids.push_back(found->second.identity.id);
  RetireLocked(found->second);
  entries_.erase(found);
  CountFloorLocked();
  ++change_counter_;
  changed_.notify_all();
}

StatusOr<AdapterStore::Retired> AdapterStore::Retire(std::string_view name, bool force) {
  Retired retired;
  retired.name = std::string(name);
  std::function<void(AdapterVersionId)> hook;
  std::vector<AdapterVersionId> ids;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::string> keys;
    if (entries_.find(name) != entries_.end()) keys.push_back(retired.name);
    const std::string kept = retired.name + "@";
    for (auto entry = entries_.lower_bound(kept);
         entry != entries_.end() && entry->first.starts_with(kept); ++entry) {
      keys.push_back(entry->first);
    }
    if (keys.empty()) return UnknownAdapter(name);
    for (const std::string& key : keys) EraseLocked(key, retired, ids);
    splits_.erase(retired.name);
    std::erase_if(aliases_, [name](const auto& alias) { return alias.second == name; });
    hook = force ? hooks_.force : nullptr;
  }
  for (const AdapterVersionId id : ids) {
    if (hook) hook(id);
  }
  return retired;
}

StatusOr<AdapterStore::Retired> AdapterStore::RetireKept(std::string_view name, int64_t version,
                                                         bool force) {
  Retired retired;
  retired.name = std::string(name);
  std::function<void(AdapterVersionId)> hook;
  std::vector<AdapterVersionId> ids;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto serving = entries_.find(name);
    if (serving != entries_.end() && serving->second.report.version == version) {
      return FailedPrecondition("adapter '%s': version %d serves; have another serve first",
                                retired.name, version);
    }
    const std::string key = KeptKey(name, version);
    if (entries_.find(key) == entries_.end()) return UnknownAdapter(key);
    EraseLocked(key, retired, ids);
    const auto split = splits_.find(name);
    if (split != splits_.end() && split->second.version == version) splits_.erase(split);
    hook = force ? hooks_.force : nullptr;
  }
  if (hook) hook(ids[0]);
  return retired;
}

// name@version where the name's requests are split, else empty.
std::string AdapterStore::DrawLocked(const std::string& name, std::string_view tenant,
                                     std::string_view session) const {
  const auto split = splits_.find(name);
  if (split == splits_.end()) return "";
  const double draw =
      session.empty() ? DrawOfCount(++draw_counter_) : DrawOfSession(name, tenant, session);
  const std::string kept = KeptKey(name, split->second.version);
  if (draw < split->second.share && TenantMay(entries_.at(kept).allowed_tenants, tenant)) {
    return kept;
  }
  return KeptKey(name, entries_.at(name).report.version);
}

AdapterStore::Choice AdapterStore::Choose(std::string_view reference, std::string_view tenant,
                                          std::string_view session) const {
  std::lock_guard<std::mutex> lock(mutex_);
  Choice choice;
  const std::string drawn = reference.find('@') == reference.npos
                                ? DrawLocked(KeyOfLocked(reference, tenant), tenant, session)
                                : "";
  choice.is_drawn = !drawn.empty();
  if (choice.is_drawn) reference = drawn;
  StatusOr<Lease> lease = AcquireLocked(reference, tenant);
  if (!lease.ok() && !absl::IsUnavailable(lease.status())) return choice;
  const Entry* entry = &entries_.find(KeyOfLocked(reference, tenant))->second;
  choice.name = entry->report.name;
  if (lease.ok()) {
    choice.lease = *std::move(lease);
    for (const Entry& retired : retired_) {
      if (retired.identity.id == choice.lease->id()) entry = &retired;
    }
  }
  choice.version = entry->report.version;
  choice.defaults = entry->source.defaults;
  return choice;
}

StatusOr<AdapterStore::Lease> AdapterStore::AcquireVersion(std::string_view name, int64_t version,
                                                           int64_t wait_ms) {
  const std::string reference = KeptKey(name, version);
  std::string tenant;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = entries_.find(reference);
    if (found == entries_.end()) found = entries_.find(name);
    if (found == entries_.end() || found->second.report.version != version) {
      return UnknownAdapter(reference);
    }
    const std::vector<std::string>& allowed = found->second.allowed_tenants;
    if (!allowed.empty()) tenant = allowed[0];
  }
  return AcquireWaiting(reference, tenant, wait_ms, [] { return false; });
}

Status AdapterStore::ShiftTraffic(const TrafficShift& shift) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto serving = entries_.find(shift.name);
  if (serving == entries_.end()) return UnknownAdapter(shift.name);
  const int64_t now = serving->second.report.version;
  if (shift.expected_version && *shift.expected_version != now) {
    return FailedPrecondition("adapter '%s': expected version %d to be serving, got %d", shift.name,
                              *shift.expected_version, now);
  }
  const auto split = splits_.find(shift.name);
  const auto kept = entries_.find(KeptKey(shift.name, shift.version));
  if (shift.version != now && kept == entries_.end()) {
    return UnknownAdapter(KeptKey(shift.name, shift.version));
  }
  if (shift.version == now && shift.share < 1) {
    return FailedPrecondition("adapter '%s': version %d serves; a share is a kept version's",
                              shift.name, now);
  }
  if (shift.share > 0 && shift.share < 1) {
    splits_.insert_or_assign(shift.name, TrafficSplit{shift.version, shift.share});
  } else if (split != splits_.end() &&
             (shift.share > 0 || split->second.version == shift.version)) {
    splits_.erase(split);
  }
  if (shift.share >= 1 && shift.version != now) {
    RekeyLocked(shift.name, KeptKey(shift.name, now));
    RekeyLocked(KeptKey(shift.name, shift.version), shift.name);
  }
  ++change_counter_;
  changed_.notify_all();
  return absl::OkStatus();
}

}  // namespace polyad
