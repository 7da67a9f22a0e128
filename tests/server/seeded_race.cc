// A race on purpose, under ThreadSanitizer alone: two threads put one QueueEstimate to use, which
// says that it is not thread-safe, without the lock that TenantGate holds. That it is reported,
// with the options and suppressions of `tools/dev sanitize tsan`, is the test: a sanitizer that
// sees nothing, or is told to overlook our code, finds no other race either.

#include <cstdio>
#include <thread>

#include "server/queue_estimate.h"

int main() {
  constexpr int kTimes = 100'000;
  polyad::QueueEstimate estimate(4);
  const auto use = [&estimate] {
    for (int i = 0; i < kTimes; ++i) {
      estimate.Arrive(i);
      estimate.Begin(i);
    }
  };
  std::thread other(use);
  use();
  other.join();
  std::printf("%lld left: the race was not seen\n", static_cast<long long>(estimate.num_queued()));
  return 0;
}
