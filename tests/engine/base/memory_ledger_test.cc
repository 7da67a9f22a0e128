#include "engine/base/memory_ledger.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <vector>

namespace polyad {
namespace {

class MemoryLedgerTest : public testing::Test {
 protected:
  std::shared_ptr<MemoryLedger> Make(int64_t pages, int64_t kv_floor) const {
    return std::make_shared<MemoryLedger>(pages, kv_floor, clock_);
  }
  FakeClock clock_;
};

TEST_F(MemoryLedgerTest, FreeAndBothSidesAreAllOfMemory) {
  const auto ledger = Make(100, 20);
  EXPECT_TRUE(ledger->TakeForKv(30));
  EXPECT_TRUE(ledger->TakeForAdapters(40));
  EXPECT_FALSE(ledger->TakeForAdapters(11));
  EXPECT_FALSE(ledger->TakeForKv(11));
  const MemoryLedger::Counts counts = ledger->counts();
  EXPECT_EQ(counts.kv, 50);
  EXPECT_EQ(counts.adapters, 40);
  EXPECT_EQ(counts.free, 10);
  ledger->CheckInvariants();
  ledger->ReturnFromKv(30);
  ledger->ReturnFromAdapters(40);
  EXPECT_EQ(ledger->counts().free, 80);
  EXPECT_DEATH(ledger->ReturnFromKv(1), "keeps its floor");
  EXPECT_DEATH(ledger->ReturnFromAdapters(1), "what they took");
}

// The largest adapter always has a place, and a quarter of memory where there are enough of them.
TEST_F(MemoryLedgerTest, KvLeavesAdaptersTheirFloor) {
  const auto ledger = Make(100, 20);
  ledger->SetAdapters(5, 5);
  EXPECT_FALSE(ledger->TakeForKv(76));
  EXPECT_TRUE(ledger->TakeForKv(75));
  ledger->ReturnFromKv(75);
  ledger->SetAdapters(5, 1000);
  EXPECT_EQ(ledger->counts().adapter_floor, 25);
  EXPECT_FALSE(ledger->TakeForKv(56));
  ASSERT_TRUE(ledger->TakeForAdapters(10));
  EXPECT_FALSE(ledger->TakeForKv(56));  // 15 of it are theirs still
  EXPECT_TRUE(ledger->TakeForKv(55));
  ledger->SetAdapters(1000, 1000);  // larger than can be: nothing of it is refused here
  EXPECT_EQ(ledger->counts().adapter_floor, 80);
  ledger->CheckInvariants();
}

TEST_F(MemoryLedgerTest, AnAdapterThatWaitsKeepsKvFromTakingMore) {
  const auto ledger = Make(100, 20);
  ASSERT_TRUE(ledger->TakeForKv(70));
  {
    MemoryLedger::Need need(*ledger, 8);
    EXPECT_FALSE(ledger->TakeForKv(3));
    EXPECT_TRUE(ledger->TakeForKv(2));
    ledger->CheckInvariants();
  }
  EXPECT_TRUE(ledger->TakeForKv(3));
}

TEST_F(MemoryLedgerTest, KvOwesWhatIsAskedForAndMissing) {
  const auto ledger = Make(100, 20);
  ASSERT_TRUE(ledger->TakeForKv(75));
  EXPECT_EQ(ledger->OwedByKv().pages, 0);
  int num_woken = 0;
  ledger->SetWake([&] { ++num_woken; });
  {
    MemoryLedger::Need need(*ledger, 15);
    EXPECT_EQ(ledger->OwedByKv().pages, 0);  // not asked
    need.AskKv();
    need.AskKv();
    EXPECT_EQ(num_woken, 1);
    EXPECT_EQ(ledger->OwedByKv().pages, 10);
    EXPECT_EQ(ledger->OwedByKv().forced, 0);
    ledger->SetAdapters(12, 12);  // a floor that K/V has taken before it was one
    EXPECT_EQ(ledger->OwedByKv().forced, 7);
    MemoryLedger::Need more(*ledger, 80);
    more.AskKv();
    EXPECT_EQ(ledger->OwedByKv().pages, 75);  // never of its floor
  }
  EXPECT_EQ(ledger->OwedByKv().pages, 0);
  ledger->CheckInvariants();
}

TEST_F(MemoryLedgerTest, TheColderSideGivesWeighedByWhatItCostsToBringBack) {
  const auto ledger = Make(100, 20);
  ASSERT_TRUE(ledger->TakeForKv(10));
  clock_.AdvanceMicros(10'000'000);
  const int64_t now = clock_.NowMicros();
  const auto ago = [now](int64_t us, double cost) {
    return MemoryLedger::Coldest{now - us, cost, true};
  };
  ledger->ShowColdestKv(ago(2000, 0));
  EXPECT_TRUE(ledger->KvIsColderThan(ago(1000, 0)));
  EXPECT_FALSE(ledger->KvIsColderThan(ago(3000, 0)));
  EXPECT_FALSE(ledger->KvIsColderThan(ago(3000, 100)));  // one cost alone says nothing
  ledger->ShowColdestKv(ago(2000, 10));
  EXPECT_TRUE(ledger->KvIsColderThan(ago(3000, 100)));
  EXPECT_FALSE(ledger->KvIsColderThan(ago(3000, 14)));
  EXPECT_TRUE(ledger->KvIsColderThan({}));  // no adapter could go
  ledger->ShowColdestKv({});
  EXPECT_FALSE(ledger->KvIsColderThan(ago(1, 1)));
  EXPECT_FALSE(ledger->KvCanGive());
  ledger->ShowColdestAdapter(ago(500, 1));
  EXPECT_TRUE(ledger->AdaptersAreColderThan(ago(400, 1)));
  EXPECT_FALSE(ledger->AdaptersAreColderThan(ago(600, 1)));
  ledger->ShowColdestKv(ago(2000, 10));
  ledger->ReturnFromKv(10);
  EXPECT_FALSE(ledger->KvIsColderThan(ago(1, 1)));  // all it has is its floor
}

TEST_F(MemoryLedgerTest, AdaptersAreAskedForNoMoreThanIsBeyondTheirFloor) {
  const auto ledger = Make(100, 20);
  ASSERT_TRUE(ledger->TakeForAdapters(30));
  ledger->SetAdapters(10, 30);
  ledger->AskAdapters(50);
  EXPECT_EQ(ledger->WaitForAsk(), 5);  // a quarter is theirs
  ledger->AskAdapters(3);
  ledger->DoneAsking();
  std::thread asker([&] { ledger->AskAdapters(2); });
  EXPECT_EQ(ledger->WaitForAsk(), 2);
  asker.join();
  ledger->Close();
  EXPECT_EQ(ledger->WaitForAsk(), 0);
}

TEST_F(MemoryLedgerTest, AChargeGivesBackWhatItHolds) {
  const auto ledger = Make(100, 20);
  ASSERT_TRUE(ledger->TakeForAdapters(10));
  std::optional<MemoryCharge> charge(std::in_place, ledger, 10);
  charge->Use(4);
  EXPECT_EQ(charge->unused(), 6);
  charge->ReturnUnused();
  EXPECT_EQ(ledger->counts().adapters, 4);
  charge.reset();
  EXPECT_EQ(ledger->counts().adapters, 0);
}

TEST_F(MemoryLedgerTest, CountsAreConservedUnderManyThreads) {
  const auto ledger = Make(256, 32);
  ledger->SetAdapters(16, 1000);
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      std::vector<int64_t> taken;
      for (int i = 0; i < 2000; ++i) {
        const auto pages = static_cast<int64_t>(1 + random() % 16);
        const bool kv = seed == 0;  // one engine thread
        std::optional<MemoryLedger::Need> need;
        if (!kv && random() % 2 == 0) need.emplace(*ledger, pages).AskKv();
        if (kv ? ledger->TakeForKv(pages) : ledger->TakeForAdapters(pages)) taken.push_back(pages);
        if (taken.size() > 4 || (kv && ledger->OwedByKv().pages > 0 && !taken.empty())) {
          kv ? ledger->ReturnFromKv(taken.back()) : ledger->ReturnFromAdapters(taken.back());
          taken.pop_back();
        }
        ledger->CheckInvariants();
      }
      for (const int64_t pages : taken) {
        seed == 0 ? ledger->ReturnFromKv(pages) : ledger->ReturnFromAdapters(pages);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ledger->counts().free, 256 - 32);
}

}  // namespace
}  // namespace polyad
