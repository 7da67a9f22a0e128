// The program killed at random moments while adapters are loaded, replaced, unloaded, pinned and
// aliased: after each start it has what it acknowledged, and of what it was at it has the state
// before or the one after. POLYAD_KILLS says how often, 40 times unless it does.

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "tests/e2e/admin_client.h"
#include "tests/e2e/server_process.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;

const std::string kGolden = std::string(POLYAD_SOURCE_DIR) + "/tests/golden";

class Durability {
 public:
  explicit Durability(uint64_t seed) : random_(seed) {
    state_ = fs::path(testing::TempDir()) / ("durability-" + std::to_string(::getpid()));
  }
  ~Durability() { fs::remove_all(state_); }

  // Learns the digests of what it will load, and leaves nothing behind.
  void Prime() {
    ServerProcess server(Flags());
    Admin admin(server.Address("admin"));
    for (size_t i = 0; i < kUris.size(); ++i) {
      const std::optional<std::string> digest = admin.Load("primer", kUris[i], false);
      ASSERT_TRUE(digest.has_value()) << kUris[i];
      digests_[i] = *digest;
    }
    ASSERT_TRUE(admin.Unload("primer"));
  }

  // One life of the server: what it has at the start, changes, and a kill among them.
  void Live() {
    ServerProcess server(Flags());
    ASSERT_NE(server.Address("admin"), "");
    Admin admin(server.Address("admin"));
    const World now = admin.List();
    ASSERT_TRUE(now == before_ || now == after_) << "start " << num_starts_;
    ++num_starts_;
    before_ = now;
    std::thread killer([&server, wait = std::chrono::microseconds(random_() % 150'000)] {
      std::this_thread::sleep_for(wait);
      server.Signal(SIGKILL);
    });
    while (Change(admin)) {
      before_ = after_;
      ++num_changes_;
    }
    killer.join();
    EXPECT_EQ(server.Wait(), 128 + SIGKILL);
  }

  int num_changes() const { return num_changes_; }

 private:
  static constexpr std::array<const char*, 3> kUris = {"plain", "rslora", "ia3_default"};

  std::vector<std::string> Flags() const {
    return {"--model",        kGolden + "/models/llama",   "--kv-mib=8",
            "--adapter-root", kGolden + "/adapters/llama", "--state-dir",
            state_.string()};
  }
  // False where it was not acknowledged: the server is gone.
  bool Change(Admin& admin) {
    const std::string name = "a" + std::to_string(random_() % 4);
    after_ = before_;
    if (before_.count(name) == 0 || random_() % 2 == 0) return Load(admin, name);
    switch (random_() % 3) {
      case 0:
        after_.erase(name);
        std::erase_if(after_,
                      [&](const auto& entry) { return entry.first.ends_with("->" + name); });
        return admin.Unload(name);
      case 1:
        after_[name].pinned = !after_[name].pinned;
        return admin.Pin(name, after_[name].pinned);
      default:
        std::erase_if(after_, [](const auto& entry) { return entry.first.starts_with("x->"); });
        after_["x->" + name] = {};
        return admin.SetAlias("x", name);
    }
  }
  bool Load(Admin& admin, const std::string& name) {
    const size_t which = random_() % kUris.size();
    const bool pinned = random_() % 2 == 0;
    after_[name] = {digests_[which], pinned};
    const std::optional<std::string> digest = admin.Load(name, kUris[which], pinned);
    if (!digest) return false;
    EXPECT_EQ(*digest, digests_[which]);
    return true;
  }

  fs::path state_;
  std::mt19937_64 random_;
  World before_;  // what was acknowledged
  World after_;   // and with the change that may have been under way
  std::array<std::string, 3> digests_;
  int num_starts_ = 0;
  int num_changes_ = 0;
};

TEST(DurabilityTest, WhatWasAcknowledgedSurvivesKills) {
  const char* asked = std::getenv("POLYAD_KILLS");
  const int kills = asked == nullptr ? 40 : std::atoi(asked);
  Durability durability(20'261'122);
  durability.Prime();
  for (int i = 0; i < kills && !testing::Test::HasFailure(); ++i) durability.Live();
  EXPECT_GT(durability.num_changes(), kills);
}

}  // namespace
}  // namespace polyad
