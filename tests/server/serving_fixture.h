#pragma once

// Everything around a FakeEngine that the fronts need.

#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "server/serving.h"
#include "tests/server/fake_engine.h"

namespace polyad {

// SHA-256 of "alice-key"; the admin token is "admin-token".
inline constexpr char kAliceKeyLine[] =
    "alice:72ee9d4355ccb9d3a4c9dbf37382e38e75c1b1a225b5bd1f729ee91bbda30c20\n";

struct ServingFixture {
  explicit ServingFixture(const std::string& api_keys = "", const std::string& admin_token = "")
      : credentials(Credentials::Parse(api_keys, admin_token).value()) {}

  FakeEngine engine;
  FakeRegistry registry;
  Credentials credentials;
  Metrics metrics;
  RealClock clock;
  WorkerPool loaders{2, 8};
  WorkerPool waiters{2, 8};
  Serving serving{.engine = engine,
                  .registry = registry,
                  .credentials = credentials,
                  .metrics = metrics,
                  .clock = clock,
                  .loaders = loaders,
                  .waiters = waiters,
                  .limits = {"base-model", 1000, 512, kMaxPromptBytes},
                  .version = "test"};
};

// Waits until `condition` holds, ten seconds at most.
template <typename Condition>
bool Eventually(Condition condition) {
  for (int i = 0; i < 10'000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

}  // namespace polyad
