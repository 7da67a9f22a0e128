#include "engine/adapters/adapter_store.h"

#include <filesystem>
#include <thread>

#include "engine/adapters/adapter_loader.h"
#include "gtest/gtest.h"
#include "tests/engine/adapters/adapter_bytes.h"
#include "tests/engine/adapters/store_fixture.h"

namespace polyad {
namespace {

TEST_F(AdapterStoreTest, TheReportSaysWhatWasLoadedAndTheStatesComeInOrder) {
  std::vector<LoadState> states;
  const StatusOr<LoadReport> report =
      store_->Load(Spec("a", "first"), [&states](LoadState state) { states.push_back(state); });
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->family, "LORA");
  EXPECT_EQ(report->ranks, std::vector<int64_t>{2});
  EXPECT_EQ(report->targets, std::vector<std::string>{"k_proj"});
  EXPECT_EQ(report->num_tensors_read, 2);
  EXPECT_EQ(report->version, 1);
  EXPECT_EQ(report->digest.size(), 64u);
  EXPECT_GT(report->resident_bytes.total(), 0);
  ASSERT_EQ(report->layer_delta_norms.size(), 1u);
  EXPECT_GT(report->layer_delta_norms[0], 0);
  EXPECT_EQ(states, (std::vector<LoadState>{LoadState::kResolving, LoadState::kVerifying,
                                            LoadState::kLowering, LoadState::kResident}));
  EXPECT_EQ(store_->resident_bytes(), report->resident_bytes);
}

TEST_F(AdapterStoreTest, ALeaseKeepsItsVersionAcrossAReplacement) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  const AdapterStore::Lease old = *store_->Acquire("a", "");
  EXPECT_EQ(store_->Load(Spec("a", "second"), nullptr).status().code(),
            absl::StatusCode::kAlreadyExists);
  LoadAdapterSpec replace = Spec("a", "second");
  replace.replace = true;
  ASSERT_TRUE(store_->Load(replace, nullptr).ok());
  const AdapterStore::Lease fresh = *store_->Acquire("a", "");
  EXPECT_EQ(old->identity().version, 1);
  EXPECT_EQ(fresh->identity().version, 2);
  EXPECT_NE(old->id(), fresh->id());
  EXPECT_NE(old->identity().digest, fresh->identity().digest);
  EXPECT_EQ((*store_->Acquire("a@1", ""))->id(), old->id());  // while somebody still holds it
  EXPECT_EQ(store_->List().size(), 2u);
}

TEST_F(AdapterStoreTest, AChoiceIsAVersionWithWhatBelongsToIt) {
  const auto notes = [](const std::shared_ptr<const void>& note) {  // the store never looks inside
    return std::static_pointer_cast<const AdapterDefaults>(note);
  };
  const auto first = std::make_shared<int>(1);
  const auto second = std::make_shared<int>(2);
  LoadAdapterSpec spec = Spec("a", "first");
  spec.allowed_tenants = {"acme"};
  spec.defaults = notes(first);
  ASSERT_TRUE(store_->Load(spec, nullptr).ok());
  ASSERT_TRUE(store_->SetAlias("x", "a").ok());
  const AdapterStore::Choice before = store_->Choose("x", "acme", "");
  EXPECT_EQ(before.name, "a");
  EXPECT_EQ(before.version, 1);
  EXPECT_EQ(before.defaults, notes(first));
  spec.path = "second";
  spec.replace = true;
  spec.defaults = notes(second);
  ASSERT_TRUE(store_->Load(spec, nullptr).ok());
  const AdapterStore::Choice after = store_->Choose("a", "acme", "");
  EXPECT_EQ(after.version, 2);
  EXPECT_EQ(after.defaults, notes(second));
  const AdapterStore::Choice old = store_->Choose("a@1", "acme", "");  // `before` leases it
  EXPECT_EQ(old.lease, before.lease);
  EXPECT_EQ(old.version, 1);
  EXPECT_EQ(old.defaults, notes(first));
  EXPECT_EQ(store_->Get("a")->defaults, notes(second));
  EXPECT_EQ(store_->Choose("a", "other", "").name, "");
  EXPECT_EQ(store_->Choose("nobody", "acme", "").lease, nullptr);
}

TEST_F(AdapterStoreTest, AVersionNobodyHoldsIsGone) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  LoadAdapterSpec replace = Spec("a", "second");
  replace.replace = true;
  ASSERT_TRUE(store_->Load(replace, nullptr).ok());
  EXPECT_EQ(store_->Acquire("a@1", "").status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(store_->Acquire("a@2", "").ok());
  EXPECT_EQ(store_->List().size(), 1u);
}

TEST_F(AdapterStoreTest, AFailedLoadLeavesTheServingVersionAlone) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  std::filesystem::resize_file(root_ + "/second/adapter_model.safetensors", 100);
  LoadAdapterSpec replace = Spec("a", "second");
  replace.replace = true;
  EXPECT_FALSE(store_->Load(replace, nullptr).ok());
  EXPECT_EQ((*store_->Acquire("a", ""))->identity().version, 1);
}

TEST_F(AdapterStoreTest, CompareAndSwapLosesAgainstAnotherVersion) {
  LoadAdapterSpec first = Spec("a", "first");
  first.expected_version = 0;
  ASSERT_TRUE(store_->Load(first, nullptr).ok());
  LoadAdapterSpec stale = Spec("a", "second");
  stale.replace = true;
  stale.expected_version = 7;
  EXPECT_EQ(store_->Load(stale, nullptr).status().code(), absl::StatusCode::kFailedPrecondition);
  stale.expected_version = 1;
  EXPECT_TRUE(store_->Load(stale, nullptr).ok());
}

TEST_F(AdapterStoreTest, AnUnexpectedDigestIsRefused) {
  LoadAdapterSpec spec = Spec("a", "first");
  spec.expected_digest = std::string(64, '0');
  EXPECT_EQ(store_->Load(spec, nullptr).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(store_->Acquire("a", "").ok());
}

TEST_F(AdapterStoreTest, UnloadWaitsForTheLastLease) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  AdapterStore::Lease lease = *store_->Acquire("a", "");
  std::thread holder([&lease] { lease.reset(); });
  EXPECT_TRUE(store_->Unload("a", false, 10'000).ok());
  holder.join();
  EXPECT_EQ(store_->resident_bytes().total(), 0);
  EXPECT_EQ(store_->Acquire("a", "").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(AdapterStoreTest, UnloadSaysWhenRequestsStillHoldTheVersion) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  const AdapterStore::Lease lease = *store_->Acquire("a", "");
  EXPECT_EQ(store_->Unload("a", false, 1).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(store_->Acquire("a", "").ok());
  EXPECT_GT(store_->resident_bytes().total(), 0);
}

TEST_F(AdapterStoreTest, AForcedUnloadHasTheEngineEndThatVersion) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  AdapterStore::Lease lease = *store_->Acquire("a", "");
  AdapterVersionId ended;
  AdapterStore::Hooks hooks;
  hooks.force = [&](AdapterVersionId id) {
    ended = id;
    lease.reset();
  };
  store_->SetHooks(std::move(hooks));
  const AdapterVersionId id = lease->id();
  EXPECT_TRUE(store_->Unload("a", true, 10'000).ok());
  EXPECT_EQ(ended, id);
}

TEST_F(AdapterStoreTest, AVersionIsMadeReadyBeforeItServesAndForgottenAfterItsLastLease) {
  std::vector<std::string> told;
  AdapterStore::Hooks hooks;
  hooks.prepare = [&](const AdapterStore::Lease& version) {
    told.push_back("prepare " + std::to_string(version->identity().version));
    const auto serving = store_->Acquire("a", "");
    told.push_back(serving.ok() ? std::to_string((*serving)->identity().version) : "none");
  };
  hooks.ended = [&](const AdapterVersion& version) {
    told.push_back("ended " + std::to_string(version.identity().version));
  };
  store_->SetHooks(std::move(hooks));
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  AdapterStore::Lease lease = *store_->Acquire("a", "");
  LoadAdapterSpec other = Spec("a", "second");
  other.replace = true;
  ASSERT_TRUE(store_->Load(other, nullptr).ok());
  EXPECT_EQ(told, (std::vector<std::string>{"prepare 1", "none", "prepare 2", "1"}));
  lease.reset();
  EXPECT_EQ(told.back(), "ended 1");
  EXPECT_TRUE(store_->Unload("a", false, 1).ok());
  EXPECT_EQ(told.back(), "ended 2");
  store_->SetHooks({});
}

TEST_F(AdapterStoreTest, ATenantNeitherSeesNorCanTellAnothersAdapter) {
  LoadAdapterSpec spec = Spec("secret", "first");
  spec.allowed_tenants = {"alice"};
  ASSERT_TRUE(store_->Load(spec, nullptr).ok());
  EXPECT_TRUE(store_->Acquire("secret", "alice").ok());
  const Status foreign = store_->Acquire("secret", "bob").status();
  Status absent = store_->Acquire("absent", "bob").status();
  EXPECT_EQ(foreign.code(), absent.code());
  EXPECT_EQ(foreign.message(), "adapter 'secret': not loaded");
  EXPECT_EQ(absent.message(), "adapter 'absent': not loaded");
}

TEST_F(AdapterStoreTest, AliasesFollowAndNeverHideAName) {
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  EXPECT_TRUE(store_->SetAlias("latest", "a").ok());
  EXPECT_EQ((*store_->Acquire("latest", ""))->identity().name, "a");
  EXPECT_EQ(store_->SetAlias("a", "a").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(store_->Load(Spec("latest", "second"), nullptr).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(store_->SetAlias("other", "absent").code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(store_->SetAlias("latest", "").ok());
  EXPECT_FALSE(store_->Acquire("latest", "").ok());
}

TEST_F(AdapterStoreTest, NamesAreBoundedAndTheBasesIsReserved) {
  for (const std::string& name :
       {std::string(), std::string("a,b"), std::string("../x"), std::string(".hidden"),
        std::string(129, 'a'), std::string("a\nb"), std::string("base-model")}) {
    EXPECT_EQ(store_->Load(Spec(name, "first"), nullptr).status().code(),
              absl::StatusCode::kInvalidArgument)
        << name;
  }
  EXPECT_TRUE(store_->Load(Spec(std::string(128, 'a'), "first"), nullptr).ok());
}

TEST_F(AdapterStoreTest, PathsStayBeneathTheirRoot) {
  std::filesystem::create_directory_symlink(root_ + "/first", root_ + "/link");
  for (const char* path : {"../first", "/etc", "link", "absent", "", "first/adapter_config.json"}) {
    EXPECT_FALSE(store_->Load(Spec("a", path), nullptr).ok()) << path;
  }
}

TEST_F(AdapterStoreTest, PickleFilesAreRefusedByName) {
  std::filesystem::rename(root_ + "/first/adapter_model.safetensors",
                          root_ + "/first/adapter_model.bin");
  const Status status = store_->Load(Spec("a", "first"), nullptr).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(std::string(status.message()).find("pickle"), std::string::npos);
}

TEST_F(AdapterStoreTest, TheBudgetsAreKept) {
  options_.max_adapters = 1;
  Reopen();
  ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok());
  EXPECT_EQ(store_->Load(Spec("b", "second"), nullptr).status().code(),
            absl::StatusCode::kResourceExhausted);
  options_ = {};
  options_.max_bytes = 64;
  Reopen();
  EXPECT_EQ(store_->Load(Spec("a", "first"), nullptr).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store_->resident_bytes().total(), 0);
}

TEST_F(AdapterStoreTest, WatchersSeeEveryChange) {
  const int64_t before = store_->WaitForChange(-1, 1);
  std::thread loader([this] { ASSERT_TRUE(store_->Load(Spec("a", "first"), nullptr).ok()); });
  EXPECT_GT(store_->WaitForChange(before, 10'000), before);
  loader.join();
}

TEST_F(AdapterStoreTest, ACompositionLeasesItsPartsAndSeesOnlyWhatTheTenantMay) {
  LoadAdapterSpec secret = Spec("secret", "second");
  secret.allowed_tenants = {"alice"};
  ASSERT_TRUE(store_->Load(Spec("open", "first"), nullptr).ok());
  ASSERT_TRUE(store_->Load(secret, nullptr).ok());
  EXPECT_EQ(store_->Compose({{"open", 1.0f}, {"secret", 1.0f}}, "bob").status().code(),
            absl::StatusCode::kNotFound);
  StatusOr<AdapterStore::Lease> composed =
      store_->Compose({{"open", 1.0f}, {"secret", 2.0f}}, "alice");
  ASSERT_TRUE(composed.ok()) << composed.status();
  EXPECT_EQ((*composed)->identity().name, "open+secret");
  EXPECT_EQ(store_->Unload("open", /*force=*/false, /*wait_ms=*/1).code(),
            absl::StatusCode::kDeadlineExceeded);
  composed->reset();
  EXPECT_TRUE(store_->Unload("secret", /*force=*/false, /*wait_ms=*/1000).ok());
}

TEST_F(AdapterStoreTest, InspectingReportsWithoutLoading) {
  const StatusOr<LoadReport> report = InspectAdapter(root_ + "/first", {{spec_}, *backend_});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->family, "LORA");
  EXPECT_EQ(report->exactness, "E1");
  EXPECT_GT(report->resident_bytes.total(), 0);
  ASSERT_FALSE(report->ops.empty());
  EXPECT_EQ(report->ops[0].op, "LowRank");
  EXPECT_EQ(report->ops[0].stage, "delta");
  PrecisionBytes bytes;
  for (const OpReport& op : report->ops) bytes += op.bytes;
  EXPECT_EQ(bytes, report->resident_bytes);
  EXPECT_TRUE(store_->List().empty());
}

TEST_F(AdapterStoreTest, ConcurrentLoadsOfOneNameGiveOneWinner) {
  std::vector<std::thread> loaders;
  std::atomic<int> wins{0};
  for (int i = 0; i < 4; ++i) {
    loaders.emplace_back([this, &wins] {
      if (store_->Load(Spec("a", "first"), nullptr).ok()) ++wins;
    });
  }
  for (std::thread& loader : loaders) loader.join();
  EXPECT_EQ(wins.load(), 1);
  EXPECT_EQ(store_->List().size(), 1u);
}

}  // namespace
}  // namespace polyad
