// Which recordings become graphs, which graphs are kept, and when none are tried: over a device
// that counts.

#include "kernels/cuda/step_graphs.h"

#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace polyad::cuda {
namespace {

// Remembers what it was told to run; has no memory and no queues.
class GraphDevice final : public Device {
 public:
  std::string name() const override { return "graphs"; }
  bool Reaches(const void*) const override { return false; }
  int64_t Upload(void*, const void*, int64_t) override { return 0; }
  void AwaitUpload(int64_t) override {}
  simt::Stream stream(QueueKind) override { return nullptr; }
  void Copy(QueueKind, void*, const void*, int64_t) override {}
  void Clear(QueueKind, void*, int64_t) override {}
  std::string Wait(QueueKind) override { return ""; }
  void Mark(int, QueueKind) override {}
  void Await(int) override {}
  void Follow(QueueKind, int) override {}
  std::unique_ptr<DeviceGraph> MakeGraph(const simt::Recording& recording) override {
    if (refuses_graphs) return nullptr;
    return std::make_unique<Graph>(*this, recording);
  }
  void Queue(const simt::Recording& recording) override { ran.push_back(Argument(recording)); }

  static int Argument(const simt::Recording& recording) {
    int value = 0;
    std::memcpy(&value, recording.Argument(recording.items()[0], 0), sizeof(value));
    return value;
  }

  std::vector<int> ran;  // the first argument of each run
  int num_graphs = 0;    // that are there
  bool refuses_graphs = false;
  bool refuses_updates = false;

 protected:
  void* TakeMemory(Memory, int64_t) override { return nullptr; }
  void GiveBack(Memory, void*) override {}
  void RecordInto(simt::Recording*) override {}

 private:
  class Graph final : public DeviceGraph {
   public:
    Graph(GraphDevice& device, const simt::Recording& recording)
        : device_(device), held_(recording) {
      ++device_.num_graphs;
    }
    ~Graph() override { --device_.num_graphs; }
    bool Update(const simt::Recording& to, std::span<const int32_t> changed) override {
      if (device_.refuses_updates) return false;
      for (const int32_t i : changed) held_.TakeItem(i, to);
      return true;
    }
    void Launch() override { device_.ran.push_back(Argument(held_)); }

   private:
    GraphDevice& device_;
    simt::Recording held_;
  };
};

constexpr char kKernels[64] = {};  // their addresses

// Launches of kernels, of which the first has the argument.
simt::Recording Recorded(const std::vector<int>& kernels, int argument) {
  simt::Recording recording;
  for (const int kernel : kernels) {
    recording.AddLaunch({1, 32, 0}, &kKernels[kernel], nullptr, argument);
    argument = 0;
  }
  return recording;
}

class StepGraphsTest : public testing::Test {
 protected:
  void Run(const std::vector<int>& kernels, int argument, int64_t rows = 4, int part = 0) {
    simt::Recording recording = Recorded(kernels, argument);
    graphs_.Run(rows, part, recording);
    expected_.push_back(argument);
    EXPECT_EQ(device_.ran, expected_);
  }
  const StepGraphs::Counts& counts() { return graphs_.counts(); }

  GraphDevice device_;
  StepGraphs graphs_{device_,
                     {.max_rows = 8, .max_shapes = 3, .max_items = 4, .worth_launches = 4}};
  std::vector<int> expected_;
};

TEST_F(StepGraphsTest, AShapeThatComesAgainBecomesAGraph) {
  Run({0, 1}, 5);
  EXPECT_EQ(counts().plain, 1);
  Run({0, 1}, 5);
  EXPECT_EQ(counts().made, 1);
  Run({0, 1}, 5);
  EXPECT_EQ(counts().launched, 2);
  EXPECT_EQ(counts().changed, 0);
  Run({0, 1}, 6);
  Run({0, 1}, 6);
  EXPECT_EQ(counts().launched, 4);
  EXPECT_EQ(counts().changed, 1) << "what is as it was is not changed again";
  EXPECT_EQ(counts().made, 1);
}

TEST_F(StepGraphsTest, RowsAndPartsHaveGraphsOfTheirOwn) {
  for (int i = 0; i < 3; ++i) {
    Run({0, 1}, 1, 4, 0);
    Run({0, 1}, 2, 4, 1);
    Run({0, 1}, 3, 5, 0);
  }
  EXPECT_EQ(counts().made, 3);
  EXPECT_EQ(counts().changed, 0);
}

TEST_F(StepGraphsTest, WhatIsRefusedIsQueuedLaunchByLaunch) {
  device_.refuses_graphs = true;
  for (int i = 0; i < 4; ++i) Run({0, 1}, i);
  EXPECT_GE(counts().refused, 1);
  EXPECT_EQ(counts().plain, 4);
  device_.refuses_graphs = false;
  for (int i = 0; i < 8; ++i) Run({0, 1}, 7);
  EXPECT_EQ(counts().made, 1);
  device_.refuses_updates = true;
  Run({0, 1}, 8);
  EXPECT_EQ(counts().dropped, 1);
  EXPECT_EQ(device_.num_graphs, 0);
  EXPECT_EQ(counts().plain + counts().launched, static_cast<int64_t>(expected_.size()));
}

TEST_F(StepGraphsTest, GraphsThatAreNotWorthItBecomeRarer) {
  device_.refuses_updates = true;
  for (int i = 0; i < 300; ++i) Run({0, 1}, i);
  EXPECT_LE(counts().made, 10) << "each doubles how often a shape is seen before the next";
  EXPECT_GE(counts().made, 4);
  device_.refuses_updates = false;
  const int64_t made = counts().made;
  for (int i = 0; i < 300; ++i) Run({0, 1}, i);
  EXPECT_EQ(counts().made, made + 1) << "and they are tried again";
}

TEST_F(StepGraphsTest, KeepsAsManyShapesAsItMayAndTheLastUsedOnes) {
  for (int i = 0; i < 8; ++i) {
    for (int kernel = 0; kernel < 3; ++kernel) Run({kernel, 1}, kernel);
  }
  EXPECT_EQ(device_.num_graphs, 3);
  Run({0, 1}, 0);
  Run({2, 1}, 0);
  Run({5, 6}, 0);  // in the place of {1, 1}
  EXPECT_EQ(device_.num_graphs, 2);
  EXPECT_EQ(counts().dropped, 1);
  const int64_t launched = counts().launched;
  Run({0, 1}, 0);
  Run({2, 1}, 0);
  EXPECT_EQ(counts().launched, launched + 2);
}

TEST_F(StepGraphsTest, LongRecordingsAreNoGraphs) {
  EXPECT_FALSE(graphs_.IsFull(Recorded({0, 1, 2}, 0)));
  EXPECT_TRUE(graphs_.IsFull(Recorded({0, 1, 2, 3}, 0)));
  for (int i = 0; i < 5; ++i) Run({0, 1, 2, 3, 4}, i);
  EXPECT_EQ(counts().plain, 5);
  EXPECT_EQ(counts().made, 0);
}

TEST_F(StepGraphsTest, RowsWhoseShapesNeverComeAgainAreLeftAlone) {
  int64_t recorded = 0;
  for (int step = 0; step < 2000; ++step) {
    if (!graphs_.Takes(4)) continue;
    ++recorded;
    Run({step % 50, step / 50}, step);
  }
  EXPECT_EQ(recorded + counts().rested, 2000);
  EXPECT_LT(recorded, 150);
  EXPECT_GT(recorded, 16) << "they are tried again";
  EXPECT_TRUE(graphs_.Takes(5)) << "other rows are not its concern";
  while (!graphs_.Takes(4)) continue;
  Run({60, 61}, 1);
  Run({60, 61}, 1);
  EXPECT_EQ(counts().made, 1);
  EXPECT_TRUE(graphs_.Takes(4));
}

TEST_F(StepGraphsTest, TakesStepsOfFewRows) {
  EXPECT_FALSE(graphs_.Takes(0));
  EXPECT_TRUE(graphs_.Takes(8));
  EXPECT_FALSE(graphs_.Takes(9));
  StepGraphs none(device_, {});
  EXPECT_FALSE(none.Takes(1));
}

}  // namespace
}  // namespace polyad::cuda
