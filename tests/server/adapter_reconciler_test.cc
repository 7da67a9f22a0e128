#include "server/adapter_reconciler.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;

std::string Declaring(const std::string& adapters, const std::string& absent = "") {
  return R"({"adapters": [)" + adapters + R"(], "absent": [)" + absent + "]}";
}
std::string One(const std::string& name, const std::string& uri, const std::string& more = "") {
  return R"({"name": ")" + name + R"(", "uri": ")" + uri + "\"" + more + "}";
}

class AdapterReconcilerTest : public testing::Test {
 protected:
  AdapterReconcilerTest() { fs::create_directories(folder_ / "state"); }
  ~AdapterReconcilerTest() override {
    reconciler_.reset();
    fs::remove_all(folder_);
  }

  // As a kubelet has a ConfigMap: the file is a link through `..data`, which is swapped whole.
  void Write(const std::string& text) {
    const std::string next = "..data-" + std::to_string(++num_writes_);
    fs::create_directories(folder_ / next);
    std::ofstream(folder_ / next / "adapters.json") << text;
    fs::create_directory_symlink(next, folder_ / "..tmp");
    fs::rename(folder_ / "..tmp", folder_ / "..data");
    if (num_writes_ == 1) {
      fs::create_symlink("..data/adapters.json", folder_ / "adapters.json");
    } else {
      fs::remove_all(folder_ / ("..data-" + std::to_string(num_writes_ - 1)));
    }
  }
  void Start() {
    reconciler_.reset();
    AdapterReconciler::Options options;
    options.path = (folder_ / "adapters.json").string();
    options.state_dir = (folder_ / "state").string();
    options.poll_ms = 2;
    options.min_pass_ms = 2;
    options.first_retry_ms = 2;
    options.last_retry_ms = 8;
    reconciler_ = std::make_unique<AdapterReconciler>(fixture_.serving, options,
                                                      LoadAdaptersFile(options.path).value());
    ASSERT_TRUE(Eventually([&] { return reconciler_->has_tried_all(); }));
  }
  int64_t VersionOf(const std::string& name) const {
    const auto info = fixture_.registry.Get(name);
    return info.ok() ? info->report.version : 0;
  }
  void LoadByHand(const std::string& name) {
    LoadAdapterSpec spec;
    spec.name = name;
    ASSERT_TRUE(fixture_.registry.Load(spec, [](LoadState) {}).ok());
  }

  const fs::path folder_ = fs::path(testing::TempDir()) /
                           ("reconcile-" + std::to_string(::getpid()) + "-" +
                            testing::UnitTest::GetInstance()->current_test_info()->name());
  int num_writes_ = 0;
  ServingFixture fixture_;
  std::unique_ptr<AdapterReconciler> reconciler_;
};

TEST_F(AdapterReconcilerTest, WhatIsDeclaredIsThereOnceAllHasBeenTried) {
  Write(Declaring(One("a", "x", R"(, "pinned": true, "aliases": ["b"])") + "," + One("c", "y")));
  Start();
  const auto a = fixture_.registry.Get("a");
  ASSERT_TRUE(a.ok());
  EXPECT_TRUE(a->pinned);
  EXPECT_EQ(a->aliases, std::vector<std::string>{"b"});
  EXPECT_EQ(VersionOf("c"), 1);
  const ReconcileCounts counts = reconciler_->counts();
  EXPECT_EQ(counts.declared, 2);
  EXPECT_EQ(counts.in_place, 2);
  EXPECT_EQ(counts.failing, 0);
  EXPECT_EQ(counts.loads, 2);
}

TEST_F(AdapterReconcilerTest, AChangedFileIsFollowedAndWhatOthersLoadedStays) {
  Write(Declaring(One("a", "x") + "," + One("c", "y")));
  LoadByHand("by-hand");
  LoadByHand("unwanted");
  Start();
  Write(Declaring(One("a", "z") + "," + One("d", "y"), R"("unwanted", "never-there")"));
  EXPECT_TRUE(Eventually([&] {
    return VersionOf("a") == 2 && VersionOf("d") == 1 && VersionOf("c") == 0 &&
           VersionOf("unwanted") == 0;
  }));
  EXPECT_EQ(VersionOf("by-hand"), 1);
  EXPECT_TRUE(Eventually([&] { return reconciler_->counts().in_place == 2; }));
  EXPECT_EQ(reconciler_->counts().unloads, 2);
}

TEST_F(AdapterReconcilerTest, PinsAndAliasesFollowWithoutALoad) {
  Write(Declaring(One("a", "x", R"(, "aliases": ["b", "c"])")));
  Start();
  ASSERT_TRUE(fixture_.registry.SetAlias("by-hand", "a").ok());
  Write(Declaring(One("a", "x", R"(, "aliases": ["c", "d"], "pinned": true)")));
  EXPECT_TRUE(Eventually([&] {
    const AdapterInfo info = fixture_.registry.Get("a").value();
    return info.pinned && info.aliases == std::vector<std::string>{"c", "by-hand", "d"};
  }));
  EXPECT_EQ(VersionOf("a"), 1);
}

TEST_F(AdapterReconcilerTest, WhatSomebodyUnloadsOrReplacesIsMadeAsDeclaredAgain) {
  Write(Declaring(One("a", "x")));
  Start();
  ASSERT_TRUE(fixture_.registry.Unload("a", false, 0).ok());
  EXPECT_TRUE(Eventually([&] { return VersionOf("a") == 1; }));
  EXPECT_TRUE(Eventually([&] { return reconciler_->counts().in_place == 1; }));
  LoadByHand("a");
  EXPECT_TRUE(Eventually([&] { return VersionOf("a") == 3; }));
}

TEST_F(AdapterReconcilerTest, AFailureIsTriedAgainAndHoldsNobodyElseUp) {
  Write(Declaring(One("a", "bad") + "," + One("c", "y")));
  Start();
  EXPECT_EQ(VersionOf("c"), 1);
  EXPECT_TRUE(Eventually([&] { return reconciler_->counts().failures >= 3; }));
  const auto failures = reconciler_->failures();
  ASSERT_EQ(failures.size(), 1);
  EXPECT_EQ(failures[0].name, "a");
  EXPECT_NE(failures[0].error.find("q_proj.lora_A"), std::string::npos);
  Write(Declaring(One("a", "good") + "," + One("c", "y")));
  EXPECT_TRUE(Eventually([&] { return VersionOf("a") == 1; }));
  EXPECT_TRUE(Eventually([&] { return reconciler_->counts().failing == 0; }));
  EXPECT_EQ(VersionOf("c"), 1);
}

TEST_F(AdapterReconcilerTest, AHostileFileChangesNothingAndSaysSo) {
  Write(Declaring(One("a", "x")));
  Start();
  int64_t refused = 0;
  for (const std::string& bad :
       {std::string("{"), Declaring(One("a", "x") + "," + One("a", "y")),
        Declaring(One("a", "x", R"(, "color": 1)")), std::string(size_t{5} << 20, ' '),
        Declaring(One("a", "x", R"(, "expected_digest": "abc")"))}) {
    Write(bad);
    ++refused;
    ASSERT_TRUE(Eventually([&] { return reconciler_->counts().files_refused >= refused; }));
    EXPECT_TRUE(reconciler_->counts().is_stale);
    EXPECT_FALSE(reconciler_->counts().file_error.empty());
    refused = reconciler_->counts().files_refused;  // a file may be seen half-swapped, and again
  }
  fs::remove(folder_ / "..data");
  ASSERT_TRUE(Eventually([&] { return reconciler_->counts().files_refused > refused; }));
  EXPECT_EQ(VersionOf("a"), 1);
  fs::create_directory_symlink("..data-" + std::to_string(num_writes_), folder_ / "..data");
  Write(Declaring(One("c", "x")));
  EXPECT_TRUE(Eventually([&] { return VersionOf("c") == 1 && VersionOf("a") == 0; }));
  EXPECT_FALSE(reconciler_->counts().is_stale);
}

TEST_F(AdapterReconcilerTest, WhatLeavesTheFileWhileNoServerRunsIsUnloadedByTheNext) {
  Write(Declaring(One("a", "x") + "," + One("c", "y")));
  LoadByHand("by-hand");
  Start();
  reconciler_.reset();
  Write(Declaring(One("c", "y")));
  Start();  // over a registry that has them all, as a durable one has
  EXPECT_EQ(VersionOf("a"), 0);
  EXPECT_EQ(VersionOf("by-hand"), 1);
  EXPECT_EQ(VersionOf("c"), 1) << "not loaded again";
  EXPECT_EQ(reconciler_->counts().loads, 0);
}

TEST_F(AdapterReconcilerTest, AnotherBasesAdapterIsRefused) {
  Write(R"({"vLLMLoRAConfig": {"defaultBaseModel": "base-model", "ensureExist": {"models": [
      {"id": "a", "source": "x"}, {"id": "c", "source": "y", "base-model": "other"}]}}})");
  Start();
  EXPECT_EQ(VersionOf("a"), 1);
  EXPECT_EQ(VersionOf("c"), 0);
  ASSERT_EQ(reconciler_->failures().size(), 1);
  EXPECT_NE(reconciler_->failures()[0].error.find("base-model"), std::string::npos);
}

TEST_F(AdapterReconcilerTest, AThousandAreMoreThanTheLoadersQueueHolds) {
  std::string adapters;
  for (int i = 0; i < 1000; ++i) {
    adapters += (i > 0 ? "," : "") + One("a" + std::to_string(i), "x");
  }
  Write(Declaring(adapters));
  Start();
  EXPECT_EQ(reconciler_->counts().in_place, 1000);
  Write(Declaring(""));
  EXPECT_TRUE(Eventually([&] { return fixture_.registry.List().empty(); }));
}

TEST_F(AdapterReconcilerTest, ItEndsWhileLoadsAreRefusedForWantOfRoom) {
  std::atomic<bool> go{false};
  std::atomic<int> num_begun{0};
  std::atomic<int> num_ended{0};
  int num_queued = 2;
  const auto wait = [&] {
    ++num_begun;
    while (!go.load()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ++num_ended;
  };
  for (int thread = 0; thread < 2; ++thread) ASSERT_TRUE(fixture_.loaders.TryRun(wait));
  ASSERT_TRUE(Eventually([&] { return num_begun.load() == 2; }));
  while (fixture_.loaders.TryRun(wait)) ++num_queued;
  Write(Declaring(One("a", "x")));
  AdapterReconciler::Options options;
  options.path = (folder_ / "adapters.json").string();
  options.poll_ms = 2;
  {
    AdapterReconciler stuck(fixture_.serving, options, LoadAdaptersFile(options.path).value());
    EXPECT_FALSE(stuck.has_tried_all());
  }
  go.store(true);
  EXPECT_TRUE(
      Eventually([&] { return num_ended.load() == num_queued; }));  // they are of this frame
  EXPECT_EQ(VersionOf("a"), 0);
}

}  // namespace
}  // namespace polyad
