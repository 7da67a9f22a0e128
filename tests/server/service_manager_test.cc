#include "server/service_manager.h"

#include <gtest/gtest.h>

#include <map>

#include "server/watchdog.h"
#include "tests/server/notify_socket.h"
#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

using Messages = std::vector<std::string>;

EnvironmentLookup Environment(std::map<std::string, std::string> values) {
  return [values](const std::string& name) -> std::optional<std::string> {
    const auto found = values.find(name);
    return found == values.end() ? std::nullopt : std::optional(found->second);
  };
}

TEST(ServiceManagerTest, ItIsToldWhatItsProtocolSays) {
  const NotifySocket socket;
  ServingFixture fixture;
  ServiceManager manager(Environment({{"NOTIFY_SOCKET", socket.path()}}), 1);
  manager.Ready();
  manager.FeedWatchdog(fixture.serving, 0);
  manager.Stopping();
  EXPECT_EQ(socket.Take(), (Messages{"READY=1", "STOPPING=1"})) << "nobody asked for a watchdog";
}

TEST(ServiceManagerTest, TheWatchdogIsFedTwiceInItsTime) {
  const NotifySocket socket;
  ServingFixture fixture;
  ServiceManager manager(
      Environment({{"NOTIFY_SOCKET", socket.path()}, {"WATCHDOG_USEC", "2000000"}}), 1);
  EXPECT_EQ(manager.watchdog_ms(), 2000);
  for (int64_t now_ms = 5000; now_ms < 9000; now_ms += 250)
    manager.FeedWatchdog(fixture.serving, now_ms);
  EXPECT_EQ(socket.Take(), Messages(4, "WATCHDOG=1"));
}

TEST(ServiceManagerTest, AStalledEngineFeedsNoWatchdog) {
  const NotifySocket socket;
  ServingFixture fixture;
  Watchdog watchdog(fixture.serving, 30'000);
  ServiceManager manager(
      Environment({{"NOTIFY_SOCKET", socket.path()}, {"WATCHDOG_USEC", "500000"}}), 1);
  manager.FeedWatchdog(fixture.serving, 1000);
  EXPECT_EQ(socket.Take().size(), 1);
  fixture.engine.load_snapshot.last_step_age_ms = 30'001;
  watchdog.Check();
  for (int64_t now_ms = 2000; now_ms < 9000; now_ms += 250)
    manager.FeedWatchdog(fixture.serving, now_ms);
  EXPECT_TRUE(socket.Take().empty());
  fixture.engine.load_snapshot.last_step_age_ms = 0;
  watchdog.Check();
  manager.FeedWatchdog(fixture.serving, 9000);
  EXPECT_EQ(socket.Take().size(), 1);
}

TEST(ServiceManagerTest, AnAbstractAddressIsTaken) {
  const NotifySocket socket("@polyad-test-" + std::to_string(::getpid()));
  ServiceManager(Environment({{"NOTIFY_SOCKET", socket.path()}}), 1).Ready();
  EXPECT_EQ(socket.Take(), Messages{"READY=1"});
}

TEST(ServiceManagerTest, AnotherProcesssWatchdogIsNotFed) {
  const NotifySocket socket;
  ServingFixture fixture;
  ServiceManager manager(
      Environment(
          {{"NOTIFY_SOCKET", socket.path()}, {"WATCHDOG_USEC", "500000"}, {"WATCHDOG_PID", "7"}}),
      8);
  manager.FeedWatchdog(fixture.serving, 1000);
  EXPECT_TRUE(socket.Take().empty());
}

TEST(ServiceManagerTest, NobodyThereIsNoError) {
  ServingFixture fixture;
  for (const std::string& address :
       {std::string(), std::string("/nowhere/at/all"), std::string("relative"),
        "/" + std::string(500, 'x'), std::string("@")}) {
    ServiceManager manager(Environment({{"NOTIFY_SOCKET", address}, {"WATCHDOG_USEC", "-5"}}), 1);
    manager.Ready();
    manager.FeedWatchdog(fixture.serving, 1000);
    manager.Stopping();
    EXPECT_EQ(manager.watchdog_ms(), 0);
  }
}

}  // namespace
}  // namespace polyad
