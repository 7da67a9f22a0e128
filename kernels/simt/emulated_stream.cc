#include "kernels/simt/emulated_stream.h"

#include <atomic>
#include <mutex>
#include <thread>

namespace polyad::simt {
namespace {

std::string WrongWith(const LaunchShape& shape) {
  if (shape.blocks < 1 || shape.blocks > kMaxBlocks) {
    return "launch: expected 1 to 2147483647 blocks, got " + std::to_string(shape.blocks);
  }
  if (shape.threads < 1 || shape.threads > kMaxBlockThreads || shape.threads % kWarpThreads != 0) {
    return "launch: expected whole warps of at most 1024 threads, got " +
           std::to_string(shape.threads);
  }
  if (shape.shared_bytes < 0 || shape.shared_bytes > kMaxShared) {
    return "launch: expected at most " + std::to_string(kMaxShared) +
           " bytes of shared memory, got " + std::to_string(shape.shared_bytes);
  }
  return "";
}

}  // namespace

EmulatedStream::EmulatedStream(const EmulatorOptions& options) : options_(options) {
  for (int i = 0; i < options.os_threads; ++i) {
    EmulatorOptions own = options;
    own.seed += static_cast<uint64_t>(i);
    executors_.push_back(std::make_unique<EmulatedBlock>(own));
  }
}

int64_t EmulatedStream::num_switches() const {
  int64_t sum = 0;
  for (const auto& executor : executors_) sum += executor->num_switches();
  return sum;
}

void EmulatedStream::Run(const LaunchShape& shape, const std::function<void()>& body) {
  if (!fault_.empty()) return;
  fault_ = WrongWith(shape);
  if (!fault_.empty()) return;
  ++num_launches_;
  RunBlocks(shape, body);
}

void EmulatedStream::RunBlocks(const LaunchShape& shape, const std::function<void()>& body) {
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  const auto work = [&](EmulatedBlock& executor) {
    for (int64_t i = next++; i < shape.blocks; i = next++) {
      const int64_t block = options_.order == Order::kReverse ? shape.blocks - 1 - i : i;
      std::string fault = executor.Run(shape, block, body);
      if (fault.empty()) continue;
      const std::lock_guard lock(mutex);
      if (fault_.empty()) fault_ = std::move(fault);
      next = shape.blocks;
    }
  };
  std::vector<std::thread> others;
  for (size_t i = 1; i < executors_.size(); ++i) {
    others.emplace_back([&, i] { work(*executors_[i]); });
  }
  work(*executors_[0]);
  for (std::thread& other : others) other.join();
}

}  // namespace polyad::simt
