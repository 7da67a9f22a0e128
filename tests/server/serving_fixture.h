#pragma once

// Everything around a FakeEngine that the fronts need.

#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "server/serving.h"
#include "tests/server/fake_engine.h"

namespace polyad {

// Alice's key is "alice-key", Bob's "bob-key"; the admin token is "admin-token".
inline constexpr char kTenantsFile[] = R"({"tenants": {
  "alice": {"keys": ["72ee9d4355ccb9d3a4c9dbf37382e38e75c1b1a225b5bd1f729ee91bbda30c20"]},
  "bob": {"keys": ["9b94dc1a51a38769f135edf04033ad7f2f487b6c25929be7a861cfc1ab10cf98"], "weight": 2, "max_requests": 1}}})";

struct ServingFixture {
  explicit ServingFixture(const std::string& tenants = "", const std::string& admin_token = "",
                          const std::string& metrics_token = "")
      : credentials(CredentialTable::Parse(tenants, admin_token, metrics_token).value()) {}

  RealClock clock;
  TenantGate gate{{}, clock};
  WorkerPool embedders{2, 64};
  FakeRegistry registry;
  Credentials credentials;
  Metrics metrics;
  FakeEngine engine;  // its threads tell the ones above, and end with it
  WorkerPool loaders{2, 8};
  WorkerPool waiters{2, 8};
  Serving serving{.engine = engine,
                  .registry = registry,
                  .credentials = credentials,
                  .gate = gate,
                  .metrics = metrics,
                  .clock = clock,
                  .loaders = loaders,
                  .waiters = waiters,
                  .embedders = embedders,
                  .limits = {"base-model", 1000, 512, kMaxPromptBytes, 4},
                  .version = "test",
                  .reaches = {Reach::kThisMachine, Reach::kThisMachine, Reach::kThisMachine}};
};

// Waits until `condition` holds, a minute at most.
template <typename Condition>
bool Eventually(Condition condition) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (std::chrono::steady_clock::now() < give_up) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return condition();
}

}  // namespace polyad
