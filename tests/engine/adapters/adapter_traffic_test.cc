// How the requests of a name are shared between its versions. covers:
// engine/adapters/adapter_store_versions.cc

#include "engine/adapters/adapter_traffic.h"

#include <cmath>
#include <map>
#include <thread>

#include "tests/engine/adapters/store_fixture.h"

namespace polyad {
namespace {

constexpr int kMany = 20'000;

TEST(AdapterTrafficTest, DrawsOfSessionsAreEvenAndOfTheTenantsOwn) {
  std::map<int, int> tenths;
  int equal = 0;
  for (int i = 0; i < kMany; ++i) {
    const std::string session = "session-" + std::to_string(i);
    const double draw = DrawOfSession("a", "acme", session);
    ASSERT_GE(draw, 0);
    ASSERT_LT(draw, 1);
    ++tenths[static_cast<int>(draw * 10)];
    EXPECT_EQ(draw, DrawOfSession("a", "acme", session));
    equal += draw == DrawOfSession("a", "other", session) ? 1 : 0;
    equal += draw == DrawOfSession("b", "acme", session) ? 1 : 0;
  }
  EXPECT_EQ(equal, 0);
  // Six standard deviations of a binomial.
  for (const auto& [tenth, count] : tenths)
    EXPECT_NEAR(count, kMany / 10, 6 * std::sqrt(kMany * 0.09));
}

TEST(AdapterTrafficTest, NoPartOfAKeyRunsIntoTheNext) {
  EXPECT_NE(DrawOfSession("a", "b", "c"), DrawOfSession("ab", "", "c"));
  EXPECT_NE(DrawOfSession("a", "b", "c"), DrawOfSession("a", "bc", ""));
}

TEST(AdapterTrafficTest, AnyRunOfRequestsSplitsAsTheShareSays) {
  for (const double share : {0.01, 0.1, 0.25, 0.5, 0.9}) {
    for (const int first : {0, 7, 123'456}) {
      int taken = 0;
      for (int i = 1; i <= 1000; ++i) {
        taken += DrawOfCount(static_cast<uint64_t>(first + i)) < share ? 1 : 0;
        EXPECT_NEAR(taken, share * i, 4) << share << " after " << i;
      }
    }
  }
}

class VersionsTest : public AdapterStoreTest {
 protected:
  LoadAdapterSpec Beside(double share) {
    LoadAdapterSpec spec = Spec("a", "second");
    spec.share = share;
    return spec;
  }
  LoadAdapterSpec Keeping() {
    LoadAdapterSpec spec = Spec("a", "second");
    spec.replace = true;
    spec.keep_previous = true;
    return spec;
  }
  int64_t Chosen(const std::string& tenant = "", const std::string& session = "") {
    return store_->Choose("a", tenant, session).version;
  }
  // How many of `count` requests get version 2.
  int Taken(int count) {
    int taken = 0;
    for (int i = 0; i < count; ++i) taken += Chosen() == 2 ? 1 : 0;
    return taken;
  }
  Status Shift(int64_t version, double share) {
    return store_->ShiftTraffic({"a", version, share, std::nullopt});
  }
  AdapterInfo InfoOf(int64_t version) {
    for (const AdapterInfo& info : store_->List()) {
      if (info.report.version == version) return info;
    }
    ADD_FAILURE() << "no version " << version;
    return {};
  }
};

TEST_F(VersionsTest, ACanaryHasItsShareAndTheAliasesToo) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  ASSERT_TRUE(store_->SetAlias("x", "a").ok());
  EXPECT_FALSE(store_->Choose("a", "", "").is_drawn);
  ASSERT_TRUE(store_->Load(Beside(0.25), nullptr).ok());
  EXPECT_NEAR(Taken(1000), 250, 4);
  int taken = 0;
  for (int i = 0; i < 1000; ++i) taken += store_->Choose("x", "", "").version == 2 ? 1 : 0;
  EXPECT_NEAR(taken, 250, 4);
  EXPECT_TRUE(store_->Choose("a", "", "").is_drawn);
  for (const int64_t version : {1, 2}) {  // and who names a version has it
    const AdapterStore::Choice choice = store_->Choose("a@" + std::to_string(version), "", "");
    EXPECT_EQ(choice.version, version);
    EXPECT_EQ(choice.lease->identity().version, version);
    EXPECT_EQ(choice.name, "a");
  }
  EXPECT_EQ(InfoOf(1).share, 0.75);
  EXPECT_FALSE(InfoOf(1).kept);
  EXPECT_EQ(InfoOf(1).aliases.size(), 1u);
  EXPECT_EQ(InfoOf(2).share, 0.25);
  EXPECT_TRUE(InfoOf(2).kept);
  EXPECT_TRUE(InfoOf(2).aliases.empty());
  EXPECT_EQ(store_->Get("a")->report.version, 1);
}

TEST_F(VersionsTest, SummariesSayOfEveryVersionWhatTheListSays) {
  const auto expect_equal = [&](size_t count) {
    const std::vector<AdapterInfo> infos = store_->List();
    const std::vector<AdapterSummary> summaries = store_->Summaries();
    ASSERT_EQ(infos.size(), count);
    ASSERT_EQ(summaries.size(), count);
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(summaries[i].name, infos[i].report.name);
      EXPECT_EQ(summaries[i].family, infos[i].report.family);
      EXPECT_EQ(summaries[i].serves, !infos[i].retired && !infos[i].kept) << i;
      EXPECT_EQ(summaries[i].resident, infos[i].resident) << i;
    }
  };
  expect_equal(0);
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  ASSERT_TRUE(store_->Load(Beside(0.25), nullptr).ok());
  ASSERT_TRUE(store_->Load(Spec("b", "first"), nullptr).ok());
  expect_equal(3);
  const AdapterStore::Lease held = *store_->Acquire("b", "");
  ASSERT_TRUE(store_->Retire("b", false).ok());
  expect_equal(3);
  const StatusOr<LoadReport> report = store_->Load(Spec("c", "second"), nullptr);
  ASSERT_TRUE(report.ok());
  LoadReport away = *report;
  away.name = "d";
  ASSERT_TRUE(store_->Restore(Spec("d", "second"), away).ok());
  expect_equal(5);
  EXPECT_FALSE(store_->Summaries()[3].resident) << "as after a restart";
}

TEST_F(VersionsTest, ASessionStaysWhereItIsWhileTheShareGrows) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  ASSERT_TRUE(store_->Load(Beside(0), nullptr).ok());
  EXPECT_EQ(Taken(1000), 0);
  std::map<std::string, int64_t> at;
  for (const double share : {0.1, 0.3, 0.9}) {
    ASSERT_TRUE(Shift(2, share).ok());
    int taken = 0;
    for (int i = 0; i < 1000; ++i) {
      const std::string session = "session-" + std::to_string(i);
      const int64_t version = Chosen("acme", session);
      EXPECT_EQ(version, Chosen("acme", session));
      EXPECT_GE(version, at[session]) << "a session went back";
      at[session] = version;
      taken += version == 2 ? 1 : 0;
    }
    EXPECT_NEAR(taken, 1000 * share, 6 * std::sqrt(1000 * share * (1 - share)));
  }
}

TEST_F(VersionsTest, GoingBackIsTheVersionItselfNotAnotherLoadOfIt) {
  const StatusOr<LoadReport> first = store_->Load(Spec("a", "first"), nullptr);
  ASSERT_TRUE(first.ok());
  const AdapterStore::Lease before = *store_->Acquire("a", "");
  ASSERT_TRUE(store_->Load(Keeping(), nullptr).ok());
  EXPECT_EQ(Chosen(), 2);
  EXPECT_EQ(InfoOf(1).share, 0);
  const AdapterStore::Lease during = *store_->Acquire("a", "");
  ASSERT_TRUE(Shift(1, 1).ok());
  EXPECT_EQ((*store_->Acquire("a", ""))->id(), before->id());
  EXPECT_EQ(store_->Get("a")->report.digest, first->digest);
  EXPECT_EQ(during->identity().version, 2);  // a request under way ends on what it began with
  EXPECT_TRUE(InfoOf(2).kept);
  ASSERT_TRUE(Shift(2, 1).ok());
  EXPECT_EQ((*store_->Acquire("a", ""))->id(), during->id());
  EXPECT_EQ(store_->Load(Keeping(), nullptr)->version, 3);  // numbers go on
  EXPECT_EQ(store_->List().size(), 3u);
}

TEST_F(VersionsTest, AShiftComparesAndEndsSplits) {
  EXPECT_EQ(Shift(1, 1).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->Load(Beside(0.5), nullptr).status().code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  const int64_t version = store_->Load(Beside(0.5), nullptr)->version;
  EXPECT_EQ(store_->ShiftTraffic({"a", version, 1, 7}).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Shift(9, 0.5).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Shift(1, 0.5).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(InfoOf(version).share, 0.5);
  ASSERT_TRUE(Shift(1, 1).ok());  // the end of the canary
  EXPECT_EQ(InfoOf(version).share, 0);
  EXPECT_EQ(InfoOf(1).share, 1);
  ASSERT_TRUE(Shift(version, 0.5).ok());
  ASSERT_TRUE(Shift(version, 0).ok());
  EXPECT_EQ(InfoOf(version).share, 0);
  ASSERT_TRUE(Shift(version, 0.5).ok());
  ASSERT_TRUE(store_->ShiftTraffic({"a", version, 1, 1}).ok());
  EXPECT_EQ(Chosen(), version);
  EXPECT_EQ(InfoOf(1).share, 0);
}

TEST_F(VersionsTest, ATenantWhoMayNotUseTheCanaryNeverDoes) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  LoadAdapterSpec beside = Beside(0.9);
  beside.allowed_tenants = {"acme"};
  ASSERT_TRUE(store_->Load(beside, nullptr).ok());
  int taken = 0;
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(Chosen("other"), 1);
    taken += Chosen("acme") == 2 ? 1 : 0;
  }
  EXPECT_GT(taken, 80);
  EXPECT_EQ(store_->Acquire("a@2", "other").status().message(), "adapter 'a@2': not loaded");
  EXPECT_EQ(store_->Choose("a@2", "other", "").name, "");
}

TEST_F(VersionsTest, AKeptVersionIsUnloadedAloneAndAllWithTheName) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  ASSERT_TRUE(store_->Load(Beside(0.5), nullptr).ok());
  ASSERT_TRUE(store_->Load(Beside(0), nullptr).ok());
  EXPECT_EQ(store_->RetireKept("a", 1, false).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->RetireKept("a", 9, false).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(store_->RetireKept("a", 2, false).ok());
  EXPECT_EQ(InfoOf(1).share, 1);
  EXPECT_FALSE(store_->Acquire("a@2", "").ok());
  AdapterStore::Lease lease = *store_->Acquire("a@3", "");
  const auto retired = store_->Retire("a", false);
  ASSERT_TRUE(retired.ok());
  EXPECT_EQ(retired->version, 3);
  EXPECT_EQ(store_->AwaitEnd(*retired, 1).code(), absl::StatusCode::kDeadlineExceeded);
  lease.reset();
  EXPECT_TRUE(store_->AwaitEnd(*retired, 10'000).ok());
  EXPECT_TRUE(store_->List().empty());
  EXPECT_EQ(store_->resident_bytes().total(), 0);
}

TEST_F(VersionsTest, EveryVersionCountsAsAnAdapter) {
  options_.max_adapters = 2;
  Reopen();
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  ASSERT_TRUE(store_->Load(Beside(0.5), nullptr).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Load(Beside(0.5), nullptr).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Load(Keeping(), nullptr).status()));
  LoadAdapterSpec replace = Spec("a", "second");
  replace.replace = true;
  EXPECT_TRUE(store_->Load(replace, nullptr).ok());
}

TEST_F(VersionsTest, ALoadThatALaterOneOvertookIsRefused) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  LoadAdapterSpec replace = Spec("a", "second");
  replace.replace = true;
  const auto slow = store_->ReadNew(replace, nullptr);
  ASSERT_TRUE(slow.ok());
  ASSERT_TRUE(store_->Load(replace, nullptr).ok());
  EXPECT_TRUE(absl::IsAborted(store_->Install(replace, *slow).status()));
  EXPECT_EQ(store_->Get("a")->report.version, 3);
}

// Room for one of the two versions.
class SwappingVersionsTest : public VersionsTest {
 protected:
  SwappingVersionsTest() {
    options_.max_bytes = store_->Load(Spec("a", "first"), nullptr)->resident_bytes.total() * 3 / 2;
    Reopen();
  }
};

TEST_F(SwappingVersionsTest, AVersionIsReadBackWhereverAShiftPutIt) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  ASSERT_TRUE(store_->Load(Keeping(), nullptr).ok());
  EXPECT_FALSE(InfoOf(1).resident);
  {
    const auto lease = store_->AcquireVersion("a", 1, 10'000);
    ASSERT_TRUE(lease.ok()) << lease.status();
    EXPECT_EQ((*lease)->identity().version, 1);
    ASSERT_TRUE(Shift(1, 1).ok());
    EXPECT_EQ(Chosen(), 1);
  }
  EXPECT_FALSE(InfoOf(2).resident);
  ASSERT_TRUE(Shift(2, 0.5).ok());
  const AdapterStore::Choice choice = store_->Choose("a@2", "", "");  // a draw may say this
  EXPECT_EQ(choice.lease, nullptr);
  EXPECT_EQ(choice.version, 2);
  const auto again = store_->AcquireWaiting("a@2", "", 10'000, [] { return false; });
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->identity().version, 2);
  EXPECT_EQ(store_->AcquireVersion("a", 3, 1).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SwappingVersionsTest, ReadersAndShiftsMayMeet) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  ASSERT_TRUE(store_->Load(Keeping(), nullptr).ok());
  std::vector<std::thread> threads;
  for (const int64_t version : {1, 2}) {
    threads.emplace_back([this, version] {
      for (int i = 0; i < 30; ++i) {
        const auto lease = store_->AcquireVersion("a", version, 60'000);
        ASSERT_TRUE(lease.ok()) << lease.status();
        EXPECT_EQ((*lease)->identity().version, version);
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    EXPECT_TRUE(Shift(1 + i % 2, 1).ok());
    EXPECT_TRUE(Shift(2 - i % 2, 0.5).ok());
    EXPECT_NE(Chosen(), 0);
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store_->List().size(), 2u);
}

}  // namespace
}  // namespace polyad
