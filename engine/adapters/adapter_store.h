#pragma once

// Names -> immutable adapter versions. Loading (read, verify, lower, pack) runs on the caller's
// thread, never the engine's, and swaps the finished version in atomically: until then the version
// that served before goes on serving. A lease is a shared_ptr: requests in flight keep the version
// they began with; unloading waits for leases to end.
//
// A name may have versions kept beside the one that serves, as name@version, to try one with a
// share of the name's requests and to go back at once (adapter_traffic.h).
//
// More adapters may be registered than memory holds. Room is made by swapping out versions that
// nobody leases and that are not pinned, used longest ago first; a request for one has its files
// read again, which must hold what they held. Where all are leased, those used longest ago are to
// give way: newer requests for them wait behind whoever waits for room, so that it comes. Adapters
// have memory of their own, or share it with K/V (MemoryLedger). Thread-safe. Errors: NOT_FOUND
// unknown name; FAILED_PRECONDITION another base or a lost compare-and-swap; INVALID_ARGUMENT
// malformed; UNIMPLEMENTED known but not served; RESOURCE_EXHAUSTED over the adapter budget;
// ABORTED where a load that began later was faster.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/adapters/adapter_traffic.h"
#include "engine/adapters/adapter_version.h"
#include "engine/adapters/base_weights.h"
#include "engine/adapters/composition.h"
#include "engine/adapters/load_report.h"
#include "engine/adapters/lowering_context.h"
#include "engine/base/adapter_name.h"
#include "engine/base/memory_ledger.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"
#include "kernels/api/backend.h"

namespace polyad {

enum class LoadState { kResolving, kVerifying, kLowering, kResident };

// What requests take for what they do not say. The edge's (server/adapter_defaults.h); the store
// keeps it beside the version and never looks inside.
struct AdapterDefaults;

struct LoadAdapterSpec {
  std::string name;
  std::string root;  // the operator's adapter root; empty: `path` itself is the operator's and
                     // trusted to be followed
  std::string path;  // a directory: beneath `root`, reached without links, or any directory where
                     // `root` is empty
  bool pinned = false;
  bool replace = false;         // false: ALREADY_EXISTS where the name serves other content
  std::string expected_digest;  // hex; empty: any
  std::optional<int64_t>
      expected_version;  // compare-and-swap on the version now serving; 0: none serves
  // What served before stays, kept as name@version, where `replace` swaps it.
  bool keep_previous = false;
  // Kept beside the version that serves, with this share of the name's requests, in [0, 1); none:
  // it serves.
  std::optional<double> share;
  std::vector<std::string> allowed_tenants;  // empty: all
  AdapterOptions options;                    // which of the file's adapters, where it holds several
  std::shared_ptr<const AdapterDefaults> defaults = nullptr;  // null: none
};

struct AdapterInfo {
  LoadReport report;
  bool pinned = false;
  bool retired = false;  // replaced or unloaded, still leased
  bool resident = true;  // false: swapped out
  bool kept = false;     // beside the version that serves
  double share = 1;      // of the name's requests that have it; 0 where it is retired
  int64_t num_leases = 0;
  std::vector<std::string> aliases;
  std::vector<std::string> allowed_tenants;
  std::shared_ptr<const AdapterDefaults> defaults;  // null: none
};

// As much as can be told of a thousand adapters many times a second: no report is copied.
struct AdapterSummary {
  std::string name;
  std::string family;
  bool serves = true;    // is what the name means: neither retired nor kept beside that
  bool resident = true;  // as AdapterInfo's
};

struct AdapterStoreOptions {
  int64_t max_adapters = 4096;
  int64_t max_bytes = int64_t{4} << 30;  // where they have memory of their own
  std::shared_ptr<MemoryLedger> memory;  // null: they have
  int64_t load_wait_ms = 5000;           // of a load, for pages of that
  int64_t max_file_bytes = int64_t{2} << 30;
  int64_t max_aliases = 4096;
  int64_t max_context = 0;                  // of any request that is served; 0: no limit
  std::string reserved_name;                // the base model's: no adapter or alias may take it
  std::shared_ptr<const BaseWeights> base;  // null: families that need the base are refused
};

struct LoadedAdapter;  // engine/adapters/adapter_loader.h
struct LoaderContext;  // likewise

class AdapterStore {
 public:
  using Progress = std::function<void(LoadState)>;
  using Lease = std::shared_ptr<const AdapterVersion>;

  // `spec` and `backend` must outlive the store.
  AdapterStore(const ModelSpec& spec, Backend& backend, AdapterStoreOptions options);
  ~AdapterStore();

  StatusOr<LoadReport> Load(const LoadAdapterSpec& spec, const Progress& progress);
  // The same in two parts, for who has to keep book of the second, which takes no time: an adapter
  // read, verified and packed, and its taking of its name.
  using Ready = std::shared_ptr<LoadedAdapter>;
  StatusOr<Ready> ReadNew(const LoadAdapterSpec& spec, const Progress& progress);
  StatusOr<LoadReport> Install(const LoadAdapterSpec& spec, const Ready& ready);
  // Registers what an earlier process loaded, as swapped out: its files are read, and must have the
  // report's digest, when it is asked for. Versions of the name go on after the report's. With a
  // share of the spec's it is kept, and has no requests until ShiftTraffic.
  Status Restore(const LoadAdapterSpec& spec, const LoadReport& report);
  // Versions of the name go on after `version`.
  void SkipVersions(std::string_view name, int64_t version);
  // Waits until the version's leases end, or with `force` has the engine end them first;
  // DEADLINE_EXCEEDED after `wait_ms` (the name is gone all the same; its memory follows its last
  // lease).
  Status Unload(std::string_view name, bool force, int64_t wait_ms);
  // The same in two parts: the name is gone, and its leases have ended.
  struct Retired {
    std::string name;
    int64_t version = 0;  // the newest of what was there
    std::vector<std::weak_ptr<const AdapterVersion>> watches;
  };
  // The name with all its versions, or one kept version: FAILED_PRECONDITION where it serves.
  StatusOr<Retired> Retire(std::string_view name, bool force);
  StatusOr<Retired> RetireKept(std::string_view name, int64_t version, bool force);
  Status AwaitEnd(const Retired& retired, int64_t wait_ms);
  // What the engine does about a version's coming and going. None is called with the store's lock
  // held but `ended`, which must not call the store.
  struct Hooks {
    // End the version's requests.
    std::function<void(AdapterVersionId)> force;
    // Make ready what its requests will share, on the loading thread; it serves after that.
    std::function<void(const Lease&)> prepare;
    // Its last lease has ended, on whichever thread held it.
    std::function<void(const AdapterVersion&)> ended;
  };
  // Returns once no `ended` of the hooks before is running.
  void SetHooks(Hooks hooks);

  // `reference` is a name, an alias or name@version. NOT_FOUND, with the same text, where the
  // tenant may not see it; UNAVAILABLE where the adapter is swapped out.
  StatusOr<Lease> Acquire(std::string_view reference, std::string_view tenant) const;
  // The version that a request would have now, with what belongs to it.
  struct Choice {
    Lease lease;       // null: none, or swapped out
    std::string name;  // not an alias; empty: the tenant may see none
    int64_t version = 0;
    std::shared_ptr<const AdapterDefaults> defaults;
    bool is_drawn = false;  // the name's requests are split, and this one was to have this version
  };
  // Requests of one `session` of a tenant go the same way; empty: each goes its own.
  Choice Choose(std::string_view reference, std::string_view tenant,
                std::string_view session) const;
  bool IsSwappedOut(std::string_view reference, std::string_view tenant) const;
  // Acquire for a request that has just arrived: UNAVAILABLE also where the adapter gives way to
  // one that has waited longer; AcquireWaiting then keeps the order.
  StatusOr<Lease> AcquireForNew(std::string_view reference, std::string_view tenant) const;
  // Swaps out adapters that nobody uses, until so many pages of memory are free or there is none.
  void SwapOutIdle(int64_t pages);
  // Acquire on a thread that may wait: reads a swapped-out adapter back, once there is room.
  // DEADLINE_EXCEEDED after `wait_ms`, UNAVAILABLE once `stopped`, FAILED_PRECONDITION where its
  // files have changed.
  StatusOr<Lease> AcquireWaiting(std::string_view reference, std::string_view tenant,
                                 int64_t wait_ms, const std::function<bool()>& stopped);
  // For the operator, whoever may use it: that version, read back if need be. NOT_FOUND where it
  // neither serves nor is kept.
  StatusOr<Lease> AcquireVersion(std::string_view name, int64_t version, int64_t wait_ms);
  // Several at once, in order, each reference as for Acquire; INVALID_ARGUMENT where they cannot be
  // composed. Counts as a lease on each part.
  StatusOr<Lease> Compose(const std::vector<AdapterUse>& uses, std::string_view tenant);

  // NOT_FOUND where the version is not there, FAILED_PRECONDITION where another than expected
  // serves.
  Status ShiftTraffic(const TrafficShift& shift);
  Status Pin(std::string_view name, bool pinned);
  // Points `alias` at `target`; an empty target removes it. An alias may not hide a loaded name.
  Status SetAlias(std::string_view alias, std::string_view target);
  StatusOr<AdapterInfo> Get(std::string_view name) const;
  std::vector<AdapterInfo> List() const;          // by name
  std::vector<AdapterSummary> Summaries() const;  // of the same, in the same order
  // Waits until the store's change counter passes `seen` or `wait_ms` is over; returns the counter
  // (WatchAdapters).
  int64_t WaitForChange(int64_t seen, int64_t wait_ms) const;

  PrecisionBytes resident_bytes() const;
  struct SwapCounts {  // since start-up
    int64_t swapped_out = 0;
    int64_t read_back = 0;
  };
  SwapCounts swap_counts() const;

 private:
  struct Entry {
    Lease lease;  // the store's own; null when retired or swapped out
    std::weak_ptr<const AdapterVersion> watch;
    AdapterVersion::Identity identity;
    LoadAdapterSpec source;  // from where it is read again
    LoadReport report;
    bool pinned = false;
    std::vector<std::string> allowed_tenants;
    bool is_reading = false;           // by a thread in ReadBack
    bool gives_way = false;            // its leases are to end, for one that waits for room
    int64_t pages = 0;                 // of shared memory, when it was last resident
    mutable int64_t last_used = 0;     // of use_counter_
    mutable int64_t last_used_us = 0;  // where memory is shared
  };
  // What is to be made room for.
  struct Wanted {
    int64_t bytes = 0;                   // where adapters have memory of their own
    MemoryLedger::Need* need = nullptr;  // else
  };
  enum class Room : uint8_t { kMade, kAsked, kNone };  // asked: of K/V, which answers soon
  struct LeaseSignal;                                  // tells of the end of a version's last lease

  static Status UnknownAdapter(std::string_view reference);
  static bool TenantMay(const std::vector<std::string>& allowed, std::string_view tenant);

  StatusOr<AdapterVersion::Identity> Reserve(const LoadAdapterSpec& spec);
  LoaderContext ContextFor(const LoadAdapterSpec& spec, int64_t room) const;
  void Prepare(const Lease& version);
  Lease LeaseOf(LoadedAdapter loaded) const;
  // Reads and packs an adapter, its memory counted in `charge`; null: nobody counts.
  using Read = std::function<StatusOr<LoadedAdapter>()>;
  StatusOr<LoadedAdapter> PackInto(const std::shared_ptr<MemoryCharge>& charge,
                                   const std::string& name, int64_t known_bytes, const Read& read);
  Status AddPages(const std::string& name, int64_t pages, MemoryCharge& charge);
  Status ReadBack(const std::string& key, std::unique_lock<std::mutex>& lock);
  StatusOr<Lease> Await(std::string_view reference, std::string_view tenant, int64_t wait_ms,
                        const std::function<bool()>& stopped, std::unique_lock<std::mutex>& lock);
  Status CheckMayInstall(const LoadAdapterSpec& spec) const;  // these need mutex_ held
  StatusOr<Lease> AcquireLocked(std::string_view reference, std::string_view tenant) const;
  // Where in entries_ what a reference names is now; empty where the tenant may see none.
  std::string KeyOfLocked(std::string_view reference, std::string_view tenant) const;
  std::string DrawLocked(const std::string& name, std::string_view tenant,
                         std::string_view session) const;
  Entry* FindLocked(const AdapterVersion::Identity& identity);
  void EraseLocked(const std::string& key, Retired& retired, std::vector<AdapterVersionId>& ids);
  // Puts it under another key where it is, so that what points to it still does.
  void RekeyLocked(const std::string& from, const std::string& to);
  AdapterInfo InfoOf(const Entry& entry, bool retired) const;
  PrecisionBytes ResidentBytesLocked() const;
  int64_t IdleBytesLocked() const;  // of what MakeRoomLocked may swap out
  // Swaps out what it takes. Shared memory is taken, too.
  Room MakeRoomLocked(const Wanted& wanted);
  Room ShareRoomLocked(MemoryLedger::Need& need);
  int64_t PagesOf(const Entry& entry) const;
  void EnterLocked(Entry& entry);  // it is resident now
  void LeaveLocked(Entry& entry);  // no longer
  void SwapOutLocked(Entry& entry);
  void UseLocked(const Entry& entry) const;
  Entry* OldestIdleLocked() const;
  MemoryLedger::Coldest ColdestLocked(const Entry* idle) const;
  void HaveGiveWayLocked(const Entry& to);
  void EndGivingWayLocked();
  void CountFloorLocked();
  void RetireLocked(Entry& entry);

  const ModelSpec& spec_;
  Backend& backend_;
  const AdapterStoreOptions options_;
  const std::shared_ptr<LeaseSignal> signal_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::map<std::string, Entry, std::less<>> entries_;        // by name; kept ones by KeptKey
  std::map<std::string, TrafficSplit, std::less<>> splits_;  // by name; the version is kept
  std::map<std::string, std::string, std::less<>> aliases_;
  std::map<std::string, int64_t, std::less<>>
      last_version_;                                    // per name, so that versions never repeat
  std::map<std::string, int64_t, std::less<>> newest_;  // loaded here, so that they never go back
  std::vector<Entry> retired_;                          // replaced or unloaded, still leased
  Hooks hooks_;                                         // but `ended`, which is signal_'s
  CompositionCache compositions_;
  int64_t next_id_ = 1;
  int64_t change_counter_ = 0;
  mutable int64_t use_counter_ = 0;
  mutable uint64_t draw_counter_ = 0;
  mutable std::map<int64_t, Entry*> by_use_;  // the resident ones, by last_used
  PrecisionBytes resident_bytes_;             // of those
  PrecisionBytes reserved_bytes_;             // of versions that are being read back
  double us_per_page_ = 0;                    // of shared memory, to read back; 0: not seen
  mutable int64_t shown_us_ = 0;              // when K/V was last told of the coldest
  bool some_give_way_ = false;
  SwapCounts swap_counts_;
};

}  // namespace polyad
