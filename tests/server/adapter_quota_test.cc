#include "server/adapter_quota.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "server/quota_error.h"
#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

constexpr int64_t kMiB = 1 << 20;

LoadAdapterSpec Spec(const std::string& name, const std::vector<std::string>& tenants) {
  LoadAdapterSpec spec;
  spec.name = name;
  spec.path = "adapter";
  spec.allowed_tenants = tenants;
  return spec;
}

struct AdapterQuotaTest : testing::Test {
  Status Reserve(const LoadAdapterSpec& spec, int64_t bytes) {
    auto reservation = quota.Reserve(spec, bytes, fixture.credentials, fixture.registry);
    if (reservation.ok()) held.push_back(*std::move(reservation));
    return reservation.status();
  }
  ServingFixture fixture{R"({"tenants": {"alice": {"max_adapter_mib": 4}, "bob": {}}})"};
  AdapterQuota quota;
  std::vector<std::unique_ptr<AdapterQuota::Reservation>> held;
};

TEST_F(AdapterQuotaTest, LoadsUnderWayCountForEveryTenantTheyName) {
  EXPECT_TRUE(Reserve(Spec("a", {"alice", "bob"}), 3 * kMiB).ok());
  const Status refused = Reserve(Spec("b", {"alice"}), 2 * kMiB);
  EXPECT_EQ(BlamedQuota(refused), "max_adapter_mib");
  EXPECT_NE(refused.message().find("5242880 bytes"), std::string::npos) << refused;
  EXPECT_TRUE(Reserve(Spec("b", {"bob"}), 100 * kMiB).ok()) << "without a quota";
  EXPECT_TRUE(Reserve(Spec("b", {}), 100 * kMiB).ok()) << "everybody's is nobody's";
  EXPECT_TRUE(Reserve(Spec("a", {"alice"}), 4 * kMiB).ok()) << "in place of the one before";
  held.clear();
  EXPECT_TRUE(Reserve(Spec("b", {"alice"}), 4 * kMiB).ok()) << "a load that failed counts no more";
}

TEST_F(AdapterQuotaTest, LoadedAdaptersCountByTheirFiles) {
  fixture.registry.file_bytes = 3 * kMiB;
  ASSERT_TRUE(fixture.registry.Load(Spec("a", {"alice"}), [](LoadState) {}).ok());
  EXPECT_FALSE(Reserve(Spec("b", {"alice"}), kMiB + 1).ok());
  EXPECT_TRUE(Reserve(Spec("b", {"alice"}), kMiB).ok());
}

TEST_F(AdapterQuotaTest, ALoadBeyondTheQuotaIsRefusedBeforeItReads) {
  const auto root = std::filesystem::path(testing::TempDir()) / "adapter-quota";
  std::filesystem::create_directories(root / "adapter" / "nested");
  std::ofstream(root / "adapter" / "weights") << std::string(5 * kMiB, 'x');
  fixture.serving.adapter_roots = {root.string()};
  EXPECT_EQ(AdapterFileBytes("adapter", fixture.serving.adapter_roots), 5 * kMiB);
  EXPECT_EQ(AdapterFileBytes("../adapter-quota/adapter", fixture.serving.adapter_roots), 0);
  EXPECT_EQ(AdapterFileBytes("absent", fixture.serving.adapter_roots), 0);
  bool began = false;
  const auto report =
      LoadWithMetrics(fixture.serving, Spec("a", {"alice"}), [&](LoadState) { began = true; });
  EXPECT_EQ(BlamedQuota(report.status()), "max_adapter_mib");
  EXPECT_FALSE(began);
  EXPECT_TRUE(LoadWithMetrics(fixture.serving, Spec("a", {"bob"}), [](LoadState) {}).ok());
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace polyad
