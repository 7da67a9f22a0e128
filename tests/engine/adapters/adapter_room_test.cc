#include <filesystem>
#include <map>
#include <random>
#include <thread>

#include "engine/adapters/adapter_store.h"
#include "engine/base/clock.h"
#include "engine/base/memory_ledger.h"
#include "gtest/gtest.h"
#include "tests/engine/adapters/adapter_bytes.h"
#include "tests/engine/adapters/store_fixture.h"

namespace polyad {
namespace {

// Room for one adapter of the two.
class SwappingStoreTest : public AdapterStoreTest {
 protected:
  SwappingStoreTest() {
    const StatusOr<LoadReport> report = store_->Load(Spec("a", "first"), nullptr);
    EXPECT_TRUE(report.ok());
    digest_ = report->digest;
    options_.max_bytes = report->resident_bytes.total() * 3 / 2;
    Reopen();
  }
  void LoadBoth() {
    ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
    ASSERT_TRUE(store_->Load(Spec("b", "second"), nullptr).ok());
  }
  StatusOr<AdapterStore::Lease> Wait(const std::string& name, int64_t wait_ms = 10'000) {
    return store_->AcquireWaiting(name, "", wait_ms, [this] { return stopped_; });
  }

  std::string digest_;
  bool stopped_ = false;
};

TEST_F(SwappingStoreTest, RoomIsMadeOfWhatNobodyUses) {
  LoadBoth();
  EXPECT_TRUE(store_->IsSwappedOut("a", ""));
  EXPECT_FALSE(store_->IsSwappedOut("b", ""));
  EXPECT_FALSE(store_->IsSwappedOut("absent", ""));
  EXPECT_TRUE(absl::IsUnavailable(store_->Acquire("a", "").status()));
  EXPECT_LE(store_->resident_bytes().total(), options_.max_bytes);
  EXPECT_FALSE(store_->Get("a")->resident);
  EXPECT_FALSE(store_->Get("a")->retired);
}

TEST_F(SwappingStoreTest, WhatIsReadBackIsTheSameVersion) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  const AdapterVersion::Identity before = (*store_->Acquire("a", ""))->identity();
  ASSERT_TRUE(store_->Load(Spec("b", "second"), nullptr).ok());
  const StatusOr<AdapterStore::Lease> again = Wait("a");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->id(), before.id);
  EXPECT_EQ((*again)->identity().version, before.version);
  EXPECT_EQ((*again)->identity().digest, before.digest);
  EXPECT_TRUE(store_->IsSwappedOut("b", ""));
  EXPECT_EQ(store_->swap_counts().swapped_out, 2);
  EXPECT_EQ(store_->swap_counts().read_back, 1);
}

TEST_F(SwappingStoreTest, WhatIsLeasedOrPinnedStays) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  AdapterStore::Lease lease = *store_->Acquire("a", "");
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Load(Spec("b", "second"), nullptr).status()));
  lease.reset();
  ASSERT_TRUE(store_->Pin("a", true).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Load(Spec("b", "second"), nullptr).status()));
  ASSERT_TRUE(store_->Pin("a", false).ok());
  EXPECT_TRUE(store_->Load(Spec("b", "second"), nullptr).ok());
}

TEST_F(SwappingStoreTest, WaitsForRoomAndNoLonger) {
  LoadBoth();
  AdapterStore::Lease lease = *store_->Acquire("b", "");
  EXPECT_TRUE(absl::IsDeadlineExceeded(Wait("a", 1).status()));
  stopped_ = true;
  EXPECT_TRUE(absl::IsUnavailable(Wait("a").status()));
  stopped_ = false;
  std::thread user([&] { lease.reset(); });
  EXPECT_TRUE(Wait("a").ok());
  user.join();
}

TEST_F(SwappingStoreTest, ManyThreadsReadItOnce) {
  LoadBoth();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this] { EXPECT_TRUE(Wait("a").ok()); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store_->swap_counts().read_back, 1);
}

TEST_F(SwappingStoreTest, FilesThatChangedAreNotServedUnderTheOldVersion) {
  LoadBoth();
  std::filesystem::copy(root_ + "/second/adapter_model.safetensors",
                        root_ + "/first/adapter_model.safetensors",
                        std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(absl::IsFailedPrecondition(Wait("a").status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(Wait("a").status()));
  EXPECT_TRUE(Wait("b").ok());
  EXPECT_TRUE(store_->Unload("a", false, 1).ok());
  EXPECT_TRUE(absl::IsNotFound(Wait("a").status()));
}

// Where every adapter is leased and requests for them go on coming, the one that waits for room has
// it all the same: those that came later wait behind it.
TEST_F(SwappingStoreTest, WhoeverWaitsForRoomIsNotOvertakenForGood) {
  LoadBoth();
  AdapterStore::Lease lease = *store_->AcquireForNew("b", "");
  std::thread waiter([&] { EXPECT_TRUE(Wait("a").ok()); });
  while (true) {  // requests for b overlap, so that it is never idle
    StatusOr<AdapterStore::Lease> next = store_->AcquireForNew("b", "");
    if (!next.ok()) {
      EXPECT_TRUE(absl::IsUnavailable(next.status()));
      EXPECT_TRUE(store_->Acquire("b", "").ok());  // a request that holds it may go on
      break;
    }
    lease = *std::move(next);
    std::this_thread::yield();
  }
  lease.reset();
  waiter.join();
  EXPECT_TRUE(store_->AcquireForNew("a", "").ok());
  EXPECT_TRUE(Wait("b").ok());
  EXPECT_TRUE(store_->AcquireForNew("b", "").ok());  // nobody waits any more
}

TEST_F(SwappingStoreTest, NobodyGivesWayToOneThatHasGivenUp) {
  LoadBoth();
  const AdapterStore::Lease lease = *store_->Acquire("b", "");
  EXPECT_TRUE(absl::IsDeadlineExceeded(Wait("a", 200).status()));
  EXPECT_TRUE(store_->AcquireForNew("b", "").ok());
}

// Memory of 12 pages for K/V, which keeps 4, and adapters; the small one takes one page.
class SharingStoreTest : public AdapterStoreTest {
 protected:
  static constexpr int64_t kAll = 12;
  static constexpr int64_t kKvFloor = 4;

  SharingStoreTest() {
    backend_ = std::move(*MakeBackend("cpu", BackendOptions{}));
    options_.memory = memory_;
    options_.load_wait_ms = 20;
    Reopen();
  }
  ~SharingStoreTest() override {
    store_.reset();
    EXPECT_EQ(memory_->counts().adapters, 0);
  }
  void WriteLarge(const std::string& directory, int64_t rank) {
    const std::string module = "base_model.model.model.layers.0.self_attn.k_proj";
    const std::string config =
        R"({"peft_type":"LORA","lora_alpha":2,"r":)" + std::to_string(rank) + "}";
    WriteAdapter(root_ + "/" + directory, config,
                 SafetensorsBytes({FloatTensor(module + ".lora_A.weight", rank, 32, 0.1f, 0.1f),
                                   FloatTensor(module + ".lora_B.weight", 16, rank, 0.1f, 0.1f)}));
  }
  StatusOr<AdapterStore::Lease> Wait(const std::string& name, int64_t wait_ms = 10'000) {
    return store_->AcquireWaiting(name, "", wait_ms, [] { return false; });
  }
  int64_t pages() const { return memory_->counts().adapters; }

  RealClock clock_;
  const std::shared_ptr<MemoryLedger> memory_ =
      std::make_shared<MemoryLedger>(kAll, kKvFloor, clock_);
};

TEST_F(SharingStoreTest, AnAdapterTakesItsPagesAndGivesThemBack) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  EXPECT_EQ(pages(), 1);
  EXPECT_EQ(memory_->counts().adapter_floor, 1);
  WriteLarge("large", 2000);
  const StatusOr<LoadReport> large = store_->Load(Spec("large", "large"), nullptr);
  ASSERT_TRUE(large.ok()) << large.status();
  EXPECT_GE((pages() - 1) * MemoryLedger::kPageBytes, large->resident_bytes.total());
  EXPECT_EQ(memory_->counts().adapter_floor, pages() - 1);
  {
    const AdapterStore::Lease lease = *store_->Acquire("a", "");
    EXPECT_TRUE(absl::IsDeadlineExceeded(store_->Unload("a", false, 1)));
    EXPECT_GT(pages(), 1);  // as long as it is leased
  }
  ASSERT_TRUE(store_->Unload("large", false, 1000).ok());
  EXPECT_EQ(pages(), 0);
}

TEST_F(SharingStoreTest, ALoadThatFailsGivesItsPagesBack) {
  WriteLarge("huge", 12'000);  // more than all of memory beside K/V
  const Status refused = store_->Load(Spec("huge", "huge"), nullptr).status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_EQ(pages(), 0);
  ASSERT_TRUE(memory_->TakeForKv(kAll - kKvFloor));  // and holds it
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Load(Spec("a", "first"), nullptr).status()));
  EXPECT_EQ(pages(), 0);
  memory_->ReturnFromKv(kAll - kKvFloor);
  LoadAdapterSpec other = Spec("a", "first");
  other.expected_digest = std::string(64, '0');
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->Load(other, nullptr).status()));
  EXPECT_EQ(pages(), 0);
  EXPECT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
}

TEST_F(SharingStoreTest, AReadThatFailsGivesItsPagesBack) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  store_->SwapOutIdle(kAll);
  EXPECT_EQ(pages(), 1);  // its floor is not asked for
  WriteLarge("large", 2000);
  ASSERT_TRUE(store_->Load(Spec("large", "large"), nullptr).ok());
  ASSERT_TRUE(memory_->TakeForKv(memory_->counts().free));
  ASSERT_TRUE(store_->Load(Spec("b", "second"), nullptr).ok());
  EXPECT_TRUE(store_->IsSwappedOut("a", ""));
  std::filesystem::remove(root_ + "/first/adapter_model.safetensors");
  const int64_t before = pages();
  EXPECT_FALSE(Wait("a").ok());
  EXPECT_LE(pages(), before);
  EXPECT_EQ(store_->swap_counts().read_back, 0);
}

TEST_F(SharingStoreTest, KvIsAskedWhereItIsColder) {
  ASSERT_TRUE(memory_->TakeForKv(kAll - kKvFloor));
  memory_->ShowColdestKv({0, 0, true});
  std::thread engine([&] {
    while (memory_->OwedByKv().pages == 0) std::this_thread::yield();
    memory_->ReturnFromKv(memory_->OwedByKv().pages);
  });
  options_.load_wait_ms = 10'000;
  Reopen();
  EXPECT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  engine.join();
  EXPECT_EQ(memory_->counts().kv, kAll - 1);
  // Now the adapter is the colder one.
  memory_->ShowColdestKv({clock_.NowMicros() + 1'000'000'000, 0, true});
  EXPECT_TRUE(store_->Load(Spec("b", "second"), nullptr).ok());
  EXPECT_TRUE(store_->IsSwappedOut("a", ""));
  EXPECT_EQ(memory_->counts().kv, kAll - 1);
}

// Loads, leases, unloads and requests of every kind beside a K/V that takes and gives: the pages
// are those of the versions that live.
TEST_F(SharingStoreTest, PagesAreConservedUnderRandomUse) {
  std::mt19937 random(3);
  std::map<std::string, int64_t> pages_of;
  const std::vector<int64_t> ranks = {2, 1000, 2000};
  for (const int64_t rank : ranks) {
    const std::string directory = "rank" + std::to_string(rank);
    WriteLarge(directory, rank);
    ASSERT_TRUE(store_->Load(Spec(directory, directory), nullptr).ok());
    pages_of[directory] = pages();
    ASSERT_TRUE(store_->Unload(directory, false, 1000).ok());
    ASSERT_EQ(pages(), 0);
  }
  EXPECT_LT(pages_of["rank2"], pages_of["rank2000"]);
  std::vector<AdapterStore::Lease> leases;
  std::map<std::string, std::string> directory_of;  // by name
  int64_t num_served = 0;
  options_.load_wait_ms = 0;
  Reopen();
  for (int round = 0; round < 1500; ++round) {
    const std::string name = "n" + std::to_string(random() % 6);
    switch (random() % 8) {
      case 0: {
        const std::string directory = "rank" + std::to_string(ranks[random() % 3]);
        LoadAdapterSpec spec = Spec(name, directory);
        spec.replace = true;
        if (store_->Load(spec, nullptr).ok()) directory_of[name] = directory;
        break;
      }
      case 1:
        if (random() % 4 == 0) store_->Unload(name, false, 0).IgnoreError();
        break;
      case 2:
        memory_->TakeForKv(static_cast<int64_t>(random() % 4));
        break;
      case 3:
        memory_->ReturnFromKv(static_cast<int64_t>(random()) %
                              (memory_->counts().kv - kKvFloor + 1));
        break;
      case 4:
        store_->SwapOutIdle(static_cast<int64_t>(random() % 6));
        break;
      case 5:
        if (!leases.empty())
          leases.erase(leases.begin() + static_cast<int>(random() % leases.size()));
        break;
      default:
        if (StatusOr<AdapterStore::Lease> lease = Wait(name, 0); lease.ok()) {
          ++num_served;
          if (leases.size() < 3) leases.push_back(*std::move(lease));
        }
    }
    memory_->CheckInvariants();
    int64_t expected = 0;
    for (const AdapterInfo& info : store_->List()) {
      if (!info.resident) continue;
      expected += pages_of["rank" + std::to_string(info.report.ranks[0])];
    }
    ASSERT_EQ(pages(), expected) << round;
  }
  EXPECT_GT(num_served, 50);
  EXPECT_GT(store_->swap_counts().swapped_out, 20);
  EXPECT_GT(store_->swap_counts().read_back, 5);
}

}  // namespace
}  // namespace polyad
