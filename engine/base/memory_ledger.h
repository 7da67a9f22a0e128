#pragma once

// Who holds the pages of a server's one memory limit: K/V blocks or adapters' weights; what neither
// holds is free. It counts and takes nothing itself: each side asks before it takes memory, and
// returns once it has given the memory back. A page is 64 KiB; K/V comes in huge pages of 32.
//
// Each side has a floor that the other cannot take from. That of K/V is one largest request, that
// of adapters the largest registered or a quarter of memory: so one request can always run with its
// adapter, whatever else waits. Beyond the floors whoever asks gets what is free; where nothing is,
// the side with the coldest memory gives: last used longest ago, weighed by what it costs to bring
// a page of it back. Adapters that wait for pages keep K/V from taking more meanwhile.
//
// Thread-safe. Times are the clock's microseconds.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "engine/base/clock.h"

namespace polyad {

class MemoryLedger {
 public:
  static constexpr int64_t kPageBytes = int64_t{64} << 10;
  static constexpr int64_t PagesFor(int64_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes; }

  // K/V holds `kv_floor` pages from the start, and always. CHECK: at most `num_pages`. The clock
  // outlives the ledger.
  MemoryLedger(int64_t num_pages, int64_t kv_floor, const Clock& clock);

  struct Counts {  // of pages: total = kv + adapters + free
    int64_t total = 0;
    int64_t kv = 0;
    int64_t adapters = 0;
    int64_t free = 0;
    int64_t kv_floor = 0;
    int64_t adapter_floor = 0;
  };
  Counts counts() const;
  int64_t now_us() const { return clock_.NowMicros(); }

  // What a side would give back first.
  struct Coldest {
    int64_t last_used_us = 0;
    double us_per_page = 0;  // to bring back; 0: not known
    bool any = false;        // false: it has nothing that it could give
  };

  // --- K/V: the engine thread ---
  bool TakeForKv(int64_t pages);
  void ReturnFromKv(int64_t pages);  // never below its floor (CHECK)
  // Pages that K/V is asked to give. `forced`: of them those it has to free of running sequences,
  // so that adapters come to their floor.
  struct Owed {
    int64_t pages = 0;
    int64_t forced = 0;
  };
  Owed OwedByKv() const;
  void ShowColdestKv(const Coldest& coldest);
  // Whether an adapter that nobody uses is colder than that.
  bool AdaptersAreColderThan(const Coldest& kv) const;
  // Has adapters swapped out, by whoever is in WaitForAsk; none below adapters' floor.
  void AskAdapters(int64_t pages);

  // --- adapters: loader threads ---
  bool TakeForAdapters(int64_t pages);
  void ReturnFromAdapters(int64_t pages);
  void ShowColdestAdapter(const Coldest& coldest);
  // Whether K/V could give something that is colder than the adapter.
  bool KvIsColderThan(const Coldest& adapter) const;
  bool KvCanGive() const;
  // What every adapter has to fit into, and the most that they can be guaranteed.
  int64_t max_adapter_pages() const { return num_pages_ - kv_floor_; }
  // `largest` and `all` of the registered adapters: the floor is the largest, or all up to a
  // quarter.
  void SetAdapters(int64_t largest, int64_t all);

  // Pages that an adapter waits for, as long as it lives.
  class Need {
   public:
    Need(MemoryLedger& ledger, int64_t pages);
    ~Need();
    Need(const Need&) = delete;
    Need& operator=(const Need&) = delete;
    int64_t pages() const { return pages_; }
    // Has K/V give as many pages as are missing, at the engine's next step.
    void AskKv();

   private:
    MemoryLedger& ledger_;
    const int64_t pages_;
    bool has_asked_ = false;
  };

  // Waits until K/V asks for pages: how many. 0 once closed. What it asks until DoneAsking is for
  // the same.
  int64_t WaitForAsk();
  void DoneAsking();
  void Close();  // for good
  // Called, without a lock held, when K/V is asked: wakes the engine thread. Not while in use.
  void SetWake(std::function<void()> wake);

  // Aborts unless free + K/V + adapters is all and the floor of K/V is held.
  void CheckInvariants() const;

 private:
  int64_t FreeLocked() const { return num_pages_ - kv_ - adapters_; }
  bool IsColder(const Coldest& a, const Coldest& b) const;

  const int64_t num_pages_;
  const int64_t kv_floor_;
  const Clock& clock_;

  mutable std::mutex mutex_;
  std::condition_variable asked_;
  std::function<void()> wake_;
  int64_t kv_;
  int64_t adapters_ = 0;
  int64_t adapter_floor_ = 0;
  int64_t waiting_ = 0;         // pages of all Needs
  int64_t asked_of_kv_ = 0;     // of those that have asked K/V
  int64_t asked_adapters_ = 0;  // pages, since DoneAsking
  Coldest coldest_kv_;
  Coldest coldest_adapter_;
  bool closed_ = false;
};

// Pages that one adapter holds, given back with it. Thread-safe as the ledger is; one owner.
class MemoryCharge {
 public:
  // `pages` were taken for it.
  MemoryCharge(std::shared_ptr<MemoryLedger> ledger, int64_t pages)
      : ledger_(std::move(ledger)), pages_(pages) {}
  ~MemoryCharge() { ledger_->ReturnFromAdapters(pages_); }
  MemoryCharge(const MemoryCharge&) = delete;
  MemoryCharge& operator=(const MemoryCharge&) = delete;

  int64_t pages() const { return pages_; }
  int64_t used() const { return used_; }
  int64_t unused() const { return pages_ - used_; }
  void Add(int64_t pages) { pages_ += pages; }  // taken
  void Use(int64_t pages) { used_ += pages; }   // of unused()
  void ReturnUnused();

 private:
  const std::shared_ptr<MemoryLedger> ledger_;
  int64_t pages_;
  int64_t used_ = 0;
};

}  // namespace polyad
