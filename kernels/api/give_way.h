#pragma once

// How long work beside the engine (adapter loads) shares the engine's cores. It runs in slices: it
// calls GiveWay between small pieces, and after kSlice of work waits until a worker of the engine's
// thread pool lends it its core. A worker lends between two runs, when it holds no task, so that
// the others go on with the next run's tasks meanwhile; the system's scheduler would put it aside
// within a task, and every thread waits for that one. A core is lent for one slice in
// kSlice + kRest, and whoever borrows it stays on it: on another it would be in a task's way again.
// While the pool rests, background work runs as it likes.
//
// Process-wide: one machine has one set of cores. Thread-safe.

#include <chrono>

namespace polyad {

inline constexpr std::chrono::microseconds kSlice{200};
inline constexpr std::chrono::microseconds kRest{350};

// By a background thread, between pieces. Costs a clock reading.
void GiveWay();

// By a worker of a pool: a stretch in which runs follow each other (it does not park), and the
// moments between two of them. An offer costs the reading of one number where nobody waits.
void BeginRuns();
void OfferCore();
void EndRuns();

}  // namespace polyad
