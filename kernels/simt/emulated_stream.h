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

namespace polyad::simt {

class EmulatedStream {
 public:
  explicit EmulatedStream(const EmulatorOptions& options);

  // body() is what each thread of each block does.
  void Run(const LaunchShape& shape, const std::function<void()>& body);
  // Called around each launch, on the thread that launches.
  void SetHooks(std::function<void()> before, std::function<void()> after) {
    before_ = std::move(before);
    after_ = std::move(after);
  }
  const std::string& fault() const { return fault_; }
  int64_t num_launches() const { return num_launches_; }
  int64_t num_switches() const;

 private:
  void RunBlocks(const LaunchShape& shape, const std::function<void()>& body);

  const EmulatorOptions options_;
  std::vector<std::unique_ptr<EmulatedBlock>> executors_;  // one per OS thread
  std::function<void()> before_;
  std::function<void()> after_;
  std::string fault_;
  int64_t num_launches_ = 0;
};

}  // namespace polyad::simt
