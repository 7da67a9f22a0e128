#pragma once

// Where emulated launches go, one after the other, as into a CUDA stream: each runs to its end
// before Run returns. After a fault nothing more runs, and fault() says what it was. One thread
// calls it; its blocks may be spread over several (EmulatorOptions::os_threads), which is how
// ThreadSanitizer sees what different blocks do to the same memory.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/simt/emulated_block.h"
#include "kernels/simt/launch_shape.h"
#include "kernels/simt/recording.h"

namespace polyad::simt {

class EmulatedStream {
 public:
  explicit EmulatedStream(const EmulatorOptions& options);

  // body() is what each thread of each block does.
  void Run(const LaunchShape& shape, const std::function<void()>& body);
  // Its launches; what it clears is the caller's to clear.
  void Run(const Recording& recording, const Recording::Item& launch) {
    Run(launch.shape, [&] { launch.call(recording, launch); });
  }
  // Launches go there from now on instead of being queued; null: they are queued again.
  void RecordInto(Recording* to) { recording_ = to; }
  bool records() const { return recording_ != nullptr; }
  // What is queued goes there, for a device that runs it later; null: it is run at once.
  void QueueInto(Recording* to) { queued_ = to; }
  // Where launches go now; null: they are run.
  Recording* recording() const { return recording_ != nullptr ? recording_ : queued_; }
  const std::string& fault() const { return fault_; }
  int64_t num_launches() const { return num_launches_; }
  int64_t num_switches() const;

 private:
  void RunBlocks(const LaunchShape& shape, const std::function<void()>& body);

  const EmulatorOptions options_;
  std::vector<std::unique_ptr<EmulatedBlock>> executors_;  // one per OS thread
  Recording* recording_ = nullptr;
  Recording* queued_ = nullptr;
  std::string fault_;
  int64_t num_launches_ = 0;
};

}  // namespace polyad::simt
