#include "server/watchdog.h"

#include <gtest/gtest.h>

#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

TEST(WatchdogTest, AStepThatDoesNotEndMakesTheServerNotReadyUntilItEnds) {
  ServingFixture fixture;
  std::vector<bool> told;
  fixture.serving.on_readiness = [&](bool ready) { told.push_back(ready); };
  Watchdog watchdog(fixture.serving, 30'000);
  fixture.engine.load_snapshot.last_step_age_ms = 30'000;
  watchdog.Check();
  EXPECT_TRUE(fixture.serving.ready());
  fixture.engine.load_snapshot.last_step_age_ms = 30'001;
  watchdog.Check();
  watchdog.Check();
  EXPECT_FALSE(fixture.serving.ready());
  MetricsSnapshot snapshot;
  snapshot.stalled = true;
  const std::string metrics = fixture.metrics.Render(snapshot);
  EXPECT_NE(metrics.find("polyad_engine_stalls_total 1"), std::string::npos);
  EXPECT_NE(metrics.find("polyad_engine_stalled 1"), std::string::npos);
  fixture.engine.load_snapshot.last_step_age_ms = 5;
  watchdog.Check();
  EXPECT_TRUE(fixture.serving.ready());
  EXPECT_EQ(told, (std::vector<bool>{false, true}));
}

TEST(WatchdogTest, ADrainingServerIsNotReadyWhateverItsEngineDoes) {
  ServingFixture fixture;
  Watchdog watchdog(fixture.serving, 1000);
  fixture.engine.load_snapshot.last_step_age_ms = 5000;
  watchdog.Check();
  DrainServing(fixture.serving, 0);
  fixture.engine.load_snapshot.last_step_age_ms = 0;
  watchdog.Check();
  EXPECT_FALSE(fixture.serving.ready());
}

}  // namespace
}  // namespace polyad
