// AdapterStore's memory: who is resident, who is swapped out for whom, and reading back.

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "engine/adapters/adapter_loader.h"
#include "engine/adapters/adapter_store.h"
#include "kernels/api/pack_arena.h"

namespace polyad {
namespace {

static_assert(PackArena::kPageBytes == MemoryLedger::kPageBytes);

// Leases end without the store's lock and K/V gives pages without it, so both are looked for rather
// than waited for.
constexpr std::chrono::milliseconds kLook{5};

// How long room is waited for before others are made to give way: most requests end by themselves
// sooner than that.
constexpr std::chrono::milliseconds kPatience{100};

constexpr int64_t kShowEveryUs = 10'000;  // that K/V is told what adapters would give

constexpr double kNewest = 0.1;  // of the running mean of what reading back takes

// Of one that nobody leases but the store.
bool IsIdle(const AdapterStore::Lease& lease, bool pinned) {
  return lease != nullptr && !pinned && lease.use_count() == 1;
}

}  // namespace

int64_t AdapterStore::PagesOf(const Entry& entry) const {
  return std::max(entry.pages, MemoryLedger::PagesFor(entry.report.resident_bytes.total()));
}

void AdapterStore::EnterLocked(Entry& entry) {
  resident_bytes_ += entry.report.resident_bytes;
  entry.last_used = ++use_counter_;
  by_use_.emplace(entry.last_used, &entry);
  UseLocked(entry);
}

void AdapterStore::LeaveLocked(Entry& entry) {
  resident_bytes_ -= entry.report.resident_bytes;
  by_use_.erase(entry.last_used);
  entry.gives_way = false;
}

void AdapterStore::UseLocked(const Entry& entry) const {
  auto used = by_use_.extract(entry.last_used);
  entry.last_used = ++use_counter_;
  used.key() = entry.last_used;
  by_use_.insert(std::move(used));
  if (options_.memory == nullptr) return;
  entry.last_used_us = options_.memory->now_us();
  if (entry.last_used_us < shown_us_ + kShowEveryUs) return;
  shown_us_ = entry.last_used_us;
  options_.memory->ShowColdestAdapter(ColdestLocked(OldestIdleLocked()));
}

AdapterStore::Entry* AdapterStore::OldestIdleLocked() const {
  for (const auto& [used, entry] : by_use_) {
    if (IsIdle(entry->lease, entry->pinned)) return entry;
  }
  return nullptr;
}

MemoryLedger::Coldest AdapterStore::ColdestLocked(const Entry* idle) const {
  if (idle == nullptr) return {};
  return {idle->last_used_us, us_per_page_, true};
}

void AdapterStore::SwapOutLocked(Entry& entry) {
  LeaveLocked(entry);
  entry.lease.reset();
  ++swap_counts_.swapped_out;
  ++change_counter_;
}

AdapterStore::Room AdapterStore::MakeRoomLocked(const Wanted& wanted) {
  if (wanted.need != nullptr) return ShareRoomLocked(*wanted.need);
  while (ResidentBytesLocked().total() + wanted.bytes > options_.max_bytes) {
    Entry* oldest = OldestIdleLocked();
    if (oldest == nullptr) return Room::kNone;
    SwapOutLocked(*oldest);
  }
  changed_.notify_all();
  return Room::kMade;
}

// Of memory that is shared with K/V: the colder of the two gives.
AdapterStore::Room AdapterStore::ShareRoomLocked(MemoryLedger::Need& need) {
  MemoryLedger& memory = *options_.memory;
  while (!memory.TakeForAdapters(need.pages())) {
    Entry* oldest = OldestIdleLocked();
    if (oldest != nullptr && !memory.KvIsColderThan(ColdestLocked(oldest))) {
      SwapOutLocked(*oldest);
      continue;
    }
    need.AskKv();
    return memory.KvCanGive() ? Room::kAsked : Room::kNone;
  }
  changed_.notify_all();
  return Room::kMade;
}

void AdapterStore::SwapOutIdle(int64_t pages) {
  std::lock_guard<std::mutex> lock(mutex_);
  bool some = false;
  while (true) {
    const MemoryLedger::Counts counts = options_.memory->counts();
    Entry* oldest = OldestIdleLocked();
    if (oldest == nullptr || counts.free >= pages) break;
    if (counts.adapters - PagesOf(*oldest) < counts.adapter_floor) break;
    SwapOutLocked(*oldest);
    some = true;
  }
  options_.memory->ShowColdestAdapter(ColdestLocked(OldestIdleLocked()));
  if (some) changed_.notify_all();
}

// Of what a request may ask for.
void AdapterStore::CountFloorLocked() {
  if (options_.memory == nullptr) return;
  int64_t largest = 0;
  int64_t all = 0;
  for (const auto& [name, entry] : entries_) {
    largest = std::max(largest, PagesOf(entry));
    all += PagesOf(entry);
  }
  options_.memory->SetAdapters(largest, all);
}

Status AdapterStore::AddPages(const std::string& name, int64_t pages, MemoryCharge& charge) {
  const int64_t missing = std::max<int64_t>(pages - charge.unused(), 0);
  const int64_t most = options_.memory->max_adapter_pages();
  if (charge.pages() + missing > most) {
    return ResourceExhausted("adapter '%s': needs more than the %d bytes of memory beside K/V",
                             name, most * MemoryLedger::kPageBytes);
  }
  if (missing > 0) {
    const auto until =
        std::chrono::steady_clock::now() + std::chrono::milliseconds(options_.load_wait_ms);
    MemoryLedger::Need need(*options_.memory, missing);
    std::unique_lock<std::mutex> lock(mutex_);
    while (MakeRoomLocked({0, &need}) != Room::kMade) {
      if (std::chrono::steady_clock::now() >= until) {
        return ResourceExhausted("adapter '%s': needs %d bytes more, all memory is in use", name,
                                 missing * MemoryLedger::kPageBytes);
      }
      changed_.wait_for(lock, kLook);
    }
    charge.Add(missing);
  }
  charge.Use(pages);
  return absl::OkStatus();
}

// What a version holds beside what the backend packs (norms, tables, ops of a backend without
// arenas) counts as well: its bytes are known once it is packed.
StatusOr<LoadedAdapter> AdapterStore::PackInto(const std::shared_ptr<MemoryCharge>& charge,
                                               const std::string& name, int64_t known_bytes,
                                               const Read& read) {
  if (charge == nullptr) return read();
  PackArena arena(
      [&](int64_t bytes) { return AddPages(name, bytes / MemoryLedger::kPageBytes, *charge); });
  std::optional<PackArena::Scope> scope(&arena);
  StatusOr<LoadedAdapter> loaded = read();
  scope.reset();
  if (!loaded.ok()) return loaded;
  const int64_t bytes = std::max(known_bytes, loaded->report.resident_bytes.total());
  const int64_t all = std::max(MemoryLedger::PagesFor(bytes), charge->used());
  POLYAD_RETURN_IF_ERROR(AddPages(name, all - charge->used(), *charge));
  charge->ReturnUnused();
  loaded->pages = charge->pages();
  loaded->version->HoldMemory(charge);
  return loaded;
}

// Reads a swapped-out adapter's files again, with the lock let go meanwhile. Its room was made.
Status AdapterStore::ReadBack(const std::string& key, std::unique_lock<std::mutex>& lock) {
  Entry& entry = entries_.find(key)->second;
  entry.is_reading = true;
  const AdapterVersion::Identity identity = entry.identity;
  const LoadAdapterSpec source = entry.source;
  const PrecisionBytes bytes = entry.report.resident_bytes;
  std::shared_ptr<MemoryCharge> charge;
  if (options_.memory != nullptr) {
    charge = std::make_shared<MemoryCharge>(options_.memory, PagesOf(entry));
  }
  reserved_bytes_ += bytes;
  lock.unlock();
  const auto start = std::chrono::steady_clock::now();
  StatusOr<LoadedAdapter> loaded = PackInto(charge, identity.name, bytes.total(), [&] {
    return ReadAdapterAgain(ContextFor(source, options_.max_bytes), {source.root, source.path},
                            identity);
  });
  const std::chrono::duration<double, std::micro> elapsed =
      std::chrono::steady_clock::now() - start;
  charge.reset();  // the version has it
  if (loaded.ok()) Prepare(loaded->version);
  lock.lock();
  reserved_bytes_ -= bytes;
  changed_.notify_all();
  Entry* found = FindLocked(identity);  // unless it was replaced or unloaded
  if (found == nullptr) {
    if (loaded.ok()) LeaseOf(*std::move(loaded));  // what was made ready for it is forgotten
    return absl::OkStatus();
  }
  found->is_reading = false;
  POLYAD_RETURN_IF_ERROR(loaded.status());
  if (loaded->pages > 0) {
    const double us_per_page = elapsed.count() / static_cast<double>(loaded->pages);
    us_per_page_ += (us_per_page_ == 0 ? 1 : kNewest) * (us_per_page - us_per_page_);
    found->pages = loaded->pages;
    CountFloorLocked();
  }
  found->lease = LeaseOf(*std::move(loaded));
  found->watch = found->lease;
  EnterLocked(*found);
  ++swap_counts_.read_back;
  ++change_counter_;
  return absl::OkStatus();
}

// Has as many of those used longest ago as it takes leased to nobody else until EndGivingWayLocked.
void AdapterStore::HaveGiveWayLocked(const Entry& to) {
  int64_t wanted = to.report.resident_bytes.total();
  for (const auto& [used, entry] : by_use_) {
    if (wanted <= 0) return;
    if (entry->pinned) continue;
    entry->gives_way = true;
    some_give_way_ = true;
    wanted -= entry->report.resident_bytes.total();
  }
}

void AdapterStore::EndGivingWayLocked() {
  if (!std::exchange(some_give_way_, false)) return;
  for (const auto& [used, entry] : by_use_) entry->gives_way = false;
}

StatusOr<AdapterStore::Lease> AdapterStore::AcquireWaiting(std::string_view reference,
                                                           std::string_view tenant, int64_t wait_ms,
                                                           const std::function<bool()>& stopped) {
  std::unique_lock<std::mutex> lock(mutex_);
  StatusOr<Lease> lease = Await(reference, tenant, wait_ms, stopped, lock);
  EndGivingWayLocked();
  return lease;
}

StatusOr<AdapterStore::Lease> AdapterStore::Await(std::string_view reference,
                                                  std::string_view tenant, int64_t wait_ms,
                                                  const std::function<bool()>& stopped,
                                                  std::unique_lock<std::mutex>& lock) {
  const auto start = std::chrono::steady_clock::now();
  std::optional<MemoryLedger::Need> need;
  while (true) {
    StatusOr<Lease> lease = AcquireLocked(reference, tenant);
    if (!absl::IsUnavailable(lease.status())) return lease;
    if (stopped()) return Unavailable("the server is stopping");
    const std::string key = KeyOfLocked(reference, tenant);
    const Entry& entry = entries_.find(key)->second;
    Room room = Room::kAsked;  // where another thread reads it
    if (!entry.is_reading) {
      const int64_t pages = PagesOf(entry);
      if (options_.memory != nullptr && (!need || need->pages() != pages)) {
        need.emplace(*options_.memory, pages);
      }
      room = MakeRoomLocked({entry.report.resident_bytes.total(), need ? &*need : nullptr});
    }
    if (room == Room::kMade) {
      need.reset();
      EndGivingWayLocked();
      POLYAD_RETURN_IF_ERROR(ReadBack(key, lock));
      continue;
    }
    const auto waited = std::chrono::steady_clock::now() - start;
    if (room == Room::kNone && waited >= kPatience) HaveGiveWayLocked(entry);
    if (waited >= std::chrono::milliseconds(wait_ms)) {
      return DeadlineExceeded("adapter '%s': no room to read it back within %d ms",
                              entry.report.name, wait_ms);
    }
    changed_.wait_for(lock, kLook);
  }
}

PrecisionBytes AdapterStore::ResidentBytesLocked() const {
  PrecisionBytes bytes = reserved_bytes_ + resident_bytes_;
  for (const Entry& entry : retired_) {
    if (!entry.watch.expired()) bytes += entry.report.resident_bytes;
  }
  return bytes;
}

int64_t AdapterStore::IdleBytesLocked() const {
  int64_t bytes = 0;
  for (const auto& [used, entry] : by_use_) {
    if (IsIdle(entry->lease, entry->pinned)) bytes += entry->report.resident_bytes.total();
  }
  return bytes;
}

}  // namespace polyad
