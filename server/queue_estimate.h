#pragma once

// How long a queue takes, by how often somebody has left it lately while others waited: sums of
// both that fade with a time constant of kFadeSeconds. Not thread-safe.

#include <cstdint>

namespace polyad {

class QueueEstimate {
 public:
  static constexpr double kFadeSeconds = 30;

  void Arrive(int64_t now_us);
  // `served`: its turn came; otherwise it gave up.
  void Leave(bool served, int64_t now_us);

  int64_t num_queued() const { return num_queued_; }
  // From one turn to the next; 0 where too little was seen to tell.
  double GapMicros(int64_t now_us);

 private:
  void Advance(int64_t now_us);

  int64_t num_queued_ = 0;
  int64_t last_us_ = 0;
  double busy_us_ = 0;  // somebody waited
  double num_turns_ = 0;
};

}  // namespace polyad
