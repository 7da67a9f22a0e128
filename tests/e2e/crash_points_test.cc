// The program ended at every call that changes its state directory, one after the other, while the
// same changes are asked of it: after the next start it has what it acknowledged, and of the change
// it was at the state before or the one after.

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tests/e2e/admin_client.h"
#include "tests/e2e/server_process.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;

const std::string kGolden = std::string(POLYAD_SOURCE_DIR) + "/tests/golden";

struct Change {
  std::function<bool(Admin&)> make;  // false where it was not acknowledged
  World after;
};

class CrashPointsTest : public testing::TestWithParam<const char*> {
 protected:
  CrashPointsTest()
      : state_(fs::path(testing::TempDir()) / ("crash-points-" + std::to_string(::getpid()))) {}
  ~CrashPointsTest() override { Clear(); }

  // The directory, and what a power cut would have put back.
  void Clear() const {
    for (const fs::directory_entry& entry : fs::directory_iterator(state_.parent_path())) {
      if (entry.path().string().starts_with(state_.string())) fs::remove_all(entry.path());
    }
  }

  std::vector<std::string> Flags() const {
    return {"--model",        kGolden + "/models/llama",   "--kv-mib=8",
            "--adapter-root", kGolden + "/adapters/llama", "--state-dir",
            state_.string()};
  }

  // Learns the digests, which a change's state is told by.
  void SetUp() override {
    ServerProcess server(Flags());
    Admin admin(server.Address("admin"));
    const std::string plain = admin.Load("a", "plain", false).value_or("");
    const std::string other = admin.Load("a", "rslora", false).value_or("");
    ASSERT_NE(plain, "");
    ASSERT_NE(other, plain);
    const auto load = [](const char* name, const char* uri, bool pinned) {
      return [=](Admin& to) { return to.Load(name, uri, pinned).has_value(); };
    };
    changes_ = {
        {load("a", "plain", false), {{"a", {plain, false}}}},
        {[](Admin& to) { return to.SetAlias("x", "a"); }, {{"a", {plain, false}}, {"x->a", {}}}},
        {load("a", "rslora", true), {{"a", {other, true}}, {"x->a", {}}}},
        {[](Admin& to) { return to.Pin("a", false); }, {{"a", {other, false}}, {"x->a", {}}}},
        {[](Admin& to) { return to.LoadBeside("a", "plain", 0.25).has_value(); },
         {{"a", {other, false, 0.75}}, {"a@3", {plain, false, 0.25}}, {"x->a", {}}}},
        {[](Admin& to) { return to.Shift("a", 3, 1); },
         {{"a", {plain, false}}, {"a@2", {other, false, 0}}, {"x->a", {}}}},
        {[](Admin& to) { return to.UnloadVersion("a", 2); }, {{"a", {plain, false}}, {"x->a", {}}}},
        {[](Admin& to) { return to.Unload("a"); }, {}},
    };
  }

  // False once the changes end before the call comes.
  bool EndAt(int call) {
    Clear();
    World before;
    World after;
    int exit_code = 0;
    {
      ServerProcess server(Flags(), {{"LD_PRELOAD", POLYAD_CRASH_SHIM},
                                     {"POLYAD_CRASH_DIR", state_.string()},
                                     {"POLYAD_CRASH_AT", std::to_string(call)},
                                     {"POLYAD_CRASH_MODE", GetParam()}});
      bool alive = !server.Address("admin").empty();
      if (alive) {
        Admin admin(server.Address("admin"));
        for (size_t i = 0; alive && i < changes_.size(); ++i) {
          after = changes_[i].after;
          alive = changes_[i].make(admin);
          if (alive) before = after;
        }
      }
      if (alive) return false;
      exit_code = server.Wait();
    }
    EXPECT_EQ(exit_code, 128 + SIGKILL) << "call " << call;
    ServerProcess server(Flags());
    EXPECT_NE(server.Address("admin"), "") << "no start after call " << call;
    if (server.Address("admin").empty()) return false;
    const World now = Admin(server.Address("admin")).List();
    EXPECT_TRUE(now == before || now == after) << "after call " << call;
    return true;
  }

  const fs::path state_;
  std::vector<Change> changes_;
};

INSTANTIATE_TEST_SUITE_P(Modes, CrashPointsTest, testing::Values("before", "torn", "after", "lost"),
                         [](const auto& mode) { return std::string(mode.param); });

TEST_P(CrashPointsTest, EveryCallThatChangesTheStateDirectoryMayBeTheLast) {
  int call = 1;
  while (!HasFailure() && EndAt(call)) ++call;
  // A start's new journal and two loads' copies alone are more calls than this.
  EXPECT_GT(call, 30);
}

}  // namespace
}  // namespace polyad
