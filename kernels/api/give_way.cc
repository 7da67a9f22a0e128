#include "kernels/api/give_way.h"

#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace polyad {
namespace {

using std::chrono::steady_clock;

// A worker that lent its core takes it back after this, whatever the borrower does: it may sleep
// in a read, or have ended.
constexpr std::chrono::microseconds kLongestLoan = 5 * kSlice;
// Nobody waits longer for a core than this, should a worker that runs be stuck in a long task.
constexpr std::chrono::milliseconds kPatience{5};

struct Loans {
  std::atomic<int> running_workers{0};
  std::atomic<int> waiting{0};
  std::mutex mutex;
  std::condition_variable offered;
  std::condition_variable returned;
  uint64_t last = 0;     // number of the latest loan
  bool is_open = false;  // it was offered and not taken yet
  bool is_back = true;   // it was given back
  int core = 0;          // the lender's
};

Loans& AllLoans() {
  static Loans& loans = *new Loans;  // workers may outlive statics
  return loans;
}

// Where the calling thread may run: on the core that it was lent, or, while the pool rests,
// wherever it could before. A thread that woke on another core than the one lent to it would wait
// there for a thread within a task, or put it aside. Where the system refuses, it runs as the
// system likes.
class Place {
 public:
  void StayOn(int core) {
    if (core == core_ || core < 0 || core >= CPU_SETSIZE) return;
    if (core_ < 0 && sched_getaffinity(0, sizeof(anywhere_), &anywhere_) != 0) return;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    if (sched_setaffinity(0, sizeof(one), &one) == 0) core_ = core;
  }
  void Leave() {
    if (core_ >= 0 && sched_setaffinity(0, sizeof(anywhere_), &anywhere_) == 0) core_ = -1;
  }

 private:
  int core_ = -1;  // -1: anywhere
  cpu_set_t anywhere_;
};

Place& OwnPlace() {
  static thread_local Place place;
  return place;
}

void AwaitCore(Loans& loans) {
  static thread_local uint64_t held = 0;
  std::unique_lock lock(loans.mutex);
  if (held != 0 && held == loans.last) {
    loans.is_back = true;
    loans.returned.notify_all();
  }
  held = 0;
  loans.waiting.fetch_add(1);
  loans.offered.wait_for(lock, kPatience,
                         [&] { return loans.is_open || loans.running_workers.load() == 0; });
  loans.waiting.fetch_sub(1);
  if (!loans.is_open) return;
  loans.is_open = false;
  held = loans.last;
  const int core = loans.core;
  lock.unlock();
  OwnPlace().StayOn(core);
}

}  // namespace

void GiveWay() {
  static thread_local steady_clock::time_point begin = steady_clock::now();
  if (steady_clock::now() - begin < kSlice) return;
  Loans& loans = AllLoans();
  if (loans.running_workers.load() == 0) {
    OwnPlace().Leave();
    sched_yield();
  } else {
    AwaitCore(loans);
  }
  begin = steady_clock::now();
}

void BeginRuns() { AllLoans().running_workers.fetch_add(1); }

void OfferCore() {
  static thread_local steady_clock::time_point end;
  Loans& loans = AllLoans();
  if (loans.waiting.load(std::memory_order_relaxed) == 0) return;
  if (steady_clock::now() - end < kRest) return;
  std::unique_lock lock(loans.mutex);
  if (loans.waiting.load() == 0) return;
  const uint64_t number = ++loans.last;
  loans.core = sched_getcpu();
  loans.is_open = true;
  loans.is_back = false;
  loans.offered.notify_one();
  loans.returned.wait_for(lock, kLongestLoan,
                          [&] { return loans.is_back || loans.last != number; });
  loans.is_open = false;
  end = steady_clock::now();
}

void EndRuns() {
  Loans& loans = AllLoans();
  if (loans.running_workers.fetch_sub(1) != 1) return;
  std::lock_guard lock(loans.mutex);
  loans.offered.notify_all();
}

}  // namespace polyad
