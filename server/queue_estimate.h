#pragma once

// How long a queue takes. While there are more requests than places, the next turn comes when one
// ends: the gap between two turns is the time that this lasted over the requests that ended
// meanwhile, sums that fade with a time constant of kFadeSeconds. What requests took
// lately stands in until enough have ended: half as many ends as there are places, in half a mean
// duration; on a new server, in no time, so that the first estimates grow with what is waited.
// Turns themselves tell nothing: when a flood begins, the free places are taken at once. Nor does
// who waits with places free, for his prompt to be read. Not thread-safe.

#include <cstdint>

namespace polyad {

class QueueEstimate {
 public:
  static constexpr double kFadeSeconds = 30;

  explicit QueueEstimate(int64_t num_places) : num_places_(num_places) {}

  void Arrive(int64_t now_us);
  // One that waited has its turn.
  void Begin(int64_t now_us);
  void GiveUp(int64_t now_us);
  // One whose turn came `ran_us` ago ends.
  void End(int64_t ran_us, int64_t now_us);

  int64_t num_queued() const { return num_queued_; }
  // From one turn to the next; 0 where nothing was seen.
  double GapMicros(int64_t now_us);

 private:
  bool is_full() const { return num_queued_ + num_running_ > num_places_; }
  void Advance(int64_t now_us);

  const int64_t num_places_;
  int64_t num_queued_ = 0;
  int64_t num_running_ = 0;
  int64_t last_us_ = 0;
  double full_us_ = 0;   // more requests than places
  double num_ends_ = 0;  // meanwhile
  double mean_run_us_ = 0;
};

}  // namespace polyad
