#pragma once

// Time as an injected dependency, so that schedulers and deadlines are tested without sleeping.
// Monotonic milliseconds and microseconds only; wall-clock time is nobody's business below the
// server. Thread-safe.

#include <atomic>
#include <chrono>
#include <cstdint>

namespace polyad {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t NowMicros() const = 0;
  int64_t NowMillis() const { return NowMicros() / 1000; }
};

class RealClock final : public Clock {
 public:
  int64_t NowMicros() const override {
    return std::chrono::duration_cast<std::chrono::microseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
};

// Moves only when told to.
class FakeClock final : public Clock {
 public:
  int64_t NowMicros() const override { return now_us_.load(std::memory_order_relaxed); }
  void AdvanceMicros(int64_t delta_us) { now_us_.fetch_add(delta_us, std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> now_us_{1'000'000};
};

}  // namespace polyad
