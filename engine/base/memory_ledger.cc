#include "engine/base/memory_ledger.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"

namespace polyad {
namespace {

constexpr int64_t kAdaptersShare = 4;  // a quarter is theirs where they can fill it

}  // namespace

MemoryLedger::MemoryLedger(int64_t num_pages, int64_t kv_floor, const Clock& clock)
    : num_pages_(num_pages), kv_floor_(kv_floor), clock_(clock), kv_(kv_floor) {
  POLYAD_CHECK(kv_floor >= 0 && kv_floor <= num_pages, "the floor of K/V is within memory");
}

MemoryLedger::Counts MemoryLedger::counts() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return {num_pages_, kv_, adapters_, FreeLocked(), kv_floor_, adapter_floor_};
}

bool MemoryLedger::TakeForKv(int64_t pages) {
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t theirs = std::max(waiting_, adapter_floor_ - adapters_);
  if (pages > FreeLocked() - std::max<int64_t>(theirs, 0)) return false;
  kv_ += pages;
  return true;
}

void MemoryLedger::ReturnFromKv(int64_t pages) {
  std::lock_guard<std::mutex> lock(mutex_);
  POLYAD_CHECK(pages >= 0 && kv_ - pages >= kv_floor_, "K/V keeps its floor");
  kv_ -= pages;
}

MemoryLedger::Owed MemoryLedger::OwedByKv() const {
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t most = std::min(asked_of_kv_ - FreeLocked(), kv_ - kv_floor_);
  if (asked_of_kv_ == 0 || most <= 0) return {};
  const int64_t to_floor = adapter_floor_ - adapters_ - FreeLocked();
  return {most, std::clamp<int64_t>(to_floor, 0, most)};
}

void MemoryLedger::ShowColdestKv(const Coldest& coldest) {
  std::lock_guard<std::mutex> lock(mutex_);
  coldest_kv_ = coldest;
}

void MemoryLedger::ShowColdestAdapter(const Coldest& coldest) {
  std::lock_guard<std::mutex> lock(mutex_);
  coldest_adapter_ = coldest;
}

// Where one side's cost is not known yet, both count as equal.
bool MemoryLedger::IsColder(const Coldest& a, const Coldest& b) const {
  if (!a.any || !b.any) return a.any;
  const int64_t now_us = clock_.NowMicros();
  auto age_a = static_cast<double>(std::max<int64_t>(now_us - a.last_used_us, 0));
  auto age_b = static_cast<double>(std::max<int64_t>(now_us - b.last_used_us, 0));
  if (a.us_per_page > 0 && b.us_per_page > 0) {
    age_a /= a.us_per_page;
    age_b /= b.us_per_page;
  }
  return age_a > age_b;
}

bool MemoryLedger::AdaptersAreColderThan(const Coldest& kv) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return IsColder(coldest_adapter_, kv);
}

bool MemoryLedger::KvIsColderThan(const Coldest& adapter) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return kv_ > kv_floor_ && IsColder(coldest_kv_, adapter);
}

bool MemoryLedger::KvCanGive() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return kv_ > kv_floor_ && (coldest_kv_.any || adapter_floor_ - adapters_ - FreeLocked() > 0);
}

void MemoryLedger::AskAdapters(int64_t pages) {
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t most = adapters_ - adapter_floor_;
  if (pages <= 0 || most <= 0) return;
  asked_adapters_ = std::max(asked_adapters_, std::min(pages, most));
  asked_.notify_all();
}

int64_t MemoryLedger::WaitForAsk() {
  std::unique_lock<std::mutex> lock(mutex_);
  asked_.wait(lock, [this] { return closed_ || asked_adapters_ > 0; });
  return closed_ ? 0 : asked_adapters_;
}

void MemoryLedger::DoneAsking() {
  std::lock_guard<std::mutex> lock(mutex_);
  asked_adapters_ = 0;
}

void MemoryLedger::Close() {
  std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  asked_.notify_all();
}

bool MemoryLedger::TakeForAdapters(int64_t pages) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (pages > FreeLocked()) return false;
  adapters_ += pages;
  return true;
}

void MemoryLedger::ReturnFromAdapters(int64_t pages) {
  std::lock_guard<std::mutex> lock(mutex_);
  POLYAD_CHECK(pages >= 0 && pages <= adapters_, "adapters return what they took");
  adapters_ -= pages;
}

void MemoryLedger::SetAdapters(int64_t largest, int64_t all) {
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t floor = std::max(largest, std::min(all, num_pages_ / kAdaptersShare));
  adapter_floor_ = std::min(floor, max_adapter_pages());
}

void MemoryLedger::SetWake(std::function<void()> wake) {
  std::lock_guard<std::mutex> lock(mutex_);
  wake_ = std::move(wake);
}

MemoryLedger::Need::Need(MemoryLedger& ledger, int64_t pages) : ledger_(ledger), pages_(pages) {
  std::lock_guard<std::mutex> lock(ledger_.mutex_);
  ledger_.waiting_ += pages_;
}

MemoryLedger::Need::~Need() {
  std::lock_guard<std::mutex> lock(ledger_.mutex_);
  ledger_.waiting_ -= pages_;
  if (has_asked_) ledger_.asked_of_kv_ -= pages_;
}

void MemoryLedger::Need::AskKv() {
  if (has_asked_) return;
  std::function<void()> wake;
  {
    std::lock_guard<std::mutex> lock(ledger_.mutex_);
    has_asked_ = true;
    ledger_.asked_of_kv_ += pages_;
    wake = ledger_.wake_;
  }
  if (wake) wake();
}

void MemoryLedger::CheckInvariants() const {
  std::lock_guard<std::mutex> lock(mutex_);
  POLYAD_CHECK(kv_ >= kv_floor_ && adapters_ >= 0 && FreeLocked() >= 0,
               "free, K/V and adapters are all of memory");
  POLYAD_CHECK(waiting_ >= asked_of_kv_ && asked_of_kv_ >= 0, "who asks waits");
  POLYAD_CHECK(adapter_floor_ + kv_floor_ <= num_pages_, "both floors fit");
}

void MemoryCharge::ReturnUnused() {
  ledger_->ReturnFromAdapters(unused());
  pages_ = used_;
}

}  // namespace polyad
