#pragma once

// Runs what was recorded of a step as a graph, where one of the same shape was recorded before for
// as many rows, and else launch by launch. Graphs that were made are kept, the last used ones, and
// are changed into what a new recording has otherwise. Shapes that do not come again cost a
// recording and nothing more, and are not recorded for a while after some of them. Engine thread.

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "kernels/cuda/device.h"

namespace polyad::cuda {

struct StepGraphOptions {
  int64_t max_rows = 0;         // of a step that is recorded; 0: none is
  int64_t max_shapes = 64;      // that are kept, each with a graph or none yet
  int64_t max_items = 8192;     // of a graph
  int64_t worth_launches = 16;  // that a graph should come to before it makes room for another
};

class StepGraphs {
 public:
  struct Counts {
    int64_t launched = 0;  // graphs
    int64_t changed = 0;   // of them, in some item
    int64_t made = 0;
    int64_t refused = 0;  // to be made or changed
    int64_t dropped = 0;  // for others
    int64_t plain = 0;    // recordings that were queued launch by launch
    int64_t rested = 0;   // steps that were not recorded
  };
  StepGraphs(Device& device, const StepGraphOptions& options);

  // Whether a step of so many rows is to be recorded; asked once at its beginning.
  bool Takes(int64_t rows);
  // Whether it is too long for a graph with anything more.
  bool IsFull(const simt::Recording& recording) const;
  // Queues the step's part `part` (its launches from one wait to the next). Takes the recording's
  // content.
  void Run(int64_t rows, int part, simt::Recording& recording);
  const Counts& counts() const { return counts_; }

 private:
  struct Shape {
    std::unique_ptr<DeviceGraph> graph;
    simt::Recording held;  // what the graph does
    int64_t seen = 0;      // times, without a graph
    int64_t launches = 0;
    int64_t last_use = 0;
  };
  // By rows, part and the hash of what was recorded.
  using Key = std::tuple<int64_t, int, uint64_t>;
  // Of steps of so many rows: recordings in succession that had no graph, and for how many steps
  // none is made.
  struct Pace {
    int64_t misses = 0;
    int64_t rest = 0;
    int64_t next_rest = 0;
  };
  bool LaunchHeld(Shape& shape, simt::Recording& recording);
  bool MakeAndLaunch(Shape& shape, simt::Recording& recording);
  void Drop(Shape& shape);
  Shape& Find(const Key& key);
  void Missed(Pace& pace);

  Device& device_;
  const StepGraphOptions options_;
  std::map<Key, Shape> shapes_;
  std::vector<Pace> paces_;  // by rows
  int64_t demand_;           // how often a shape is seen before a graph is made of it
  int64_t now_ = 0;          // recordings so far
  Counts counts_;
};

}  // namespace polyad::cuda
