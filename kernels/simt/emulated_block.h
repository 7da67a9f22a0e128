#pragma once

// One block of an emulated launch: its threads as fibers on one OS thread, their barriers, warp
// operations, shared memory and asynchronous copies. A thread runs until it waits for others, so
// `EmulatorOptions::order` decides who comes first. A fault (see the messages in the .cc file) ends
// the launch: its threads are abandoned where they stand. Kernels reach it through
// kernels/simt/emulated_device.h; blocks are run by EmulatedStream.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/simt/fiber.h"
#include "kernels/simt/launch_shape.h"
#include "kernels/simt/shared_memory.h"

namespace polyad::simt {

enum class Order : uint8_t { kForward, kReverse, kRandom };

struct EmulatorOptions {
  Order order = Order::kForward;
  uint64_t seed = 1;  // of kRandom
  int os_threads = 1;
  bool portable_switch = false;  // ucontext even where there is a faster switch
};

// Works on the operands of all lanes at once: operands[lane] is what that lane handed in.
using WarpFunction = void (*)(void* const* operands);

class EmulatedBlock {
 public:
  explicit EmulatedBlock(const EmulatorOptions& options);

  // Runs block `index` of a launch to its end. Empty, or the fault.
  std::string Run(const LaunchShape& shape, int64_t index, const std::function<void()>& body);
  int64_t num_switches() const { return num_switches_; }

  // The block whose thread is running on this OS thread.
  static EmulatedBlock& Current();

  // --- for the running thread ---
  int thread() const { return thread_; }
  int64_t index() const { return index_; }
  int64_t num_blocks() const { return shape_.blocks; }
  void BlockBarrier(int line);
  void WarpBarrier(int line);
  void WarpCall(WarpFunction function, void* operand, int line);

  // Bytes of a shared array declared at `key`.
  unsigned char* Place(const void* key, int64_t bytes, const char* name);
  unsigned char* PlaceDynamic(int64_t offset, int64_t bytes);
  void BeforeRead(const unsigned char* at, int64_t bytes, int line);
  void BeforeWrite(const unsigned char* at, int64_t bytes, int line);
  // 16 bytes: `valid` of them from global memory, zeros behind.
  void CopyAsync(unsigned char* to, const void* from, int valid, int line);
  void CommitCopies();
  void WaitCopies(int still_running);

  // Ends the launch with a fault of the running thread.
  [[noreturn]] void Fail(const char* what, int line, const char* detail = "", int64_t number = -1);

 private:
  enum class State : uint8_t { kReady, kBlockBarrier, kWarpCall, kDone };

  static constexpr int kMaxCopies = 64;  // under way at once, of one thread
  struct Copy {
    unsigned char* to;
    const void* from;
    int valid;
    int group;
  };
  struct Thread {
    State state = State::kReady;
    int line = 0;  // where it waits
    void* operand = nullptr;
    WarpFunction function = nullptr;
    Toucher toucher;
    int num_copies = 0;
    int group = 0;  // that copies are added to
    Copy copies[kMaxCopies];
  };
  // The warp operation that lanes wait for.
  struct Warp {
    int num_waiting = 0;
    int first_thread = 0;  // of those
    int ended_lane = -1;   // one of those that ended
  };

  static void ThreadMain(void* block);
  void Begin(const LaunchShape& shape, int64_t index);
  void MakeOrder();
  void Wait(State state, int line);
  void ReleaseWarp(int warp);
  std::string DescribeDeadlock() const;
  int64_t OffsetOf(const unsigned char* at) { return at - shared_.At(0); }

  const EmulatorOptions options_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::unique_ptr<Thread[]> threads_;
  std::unique_ptr<int[]> order_;
  SharedMemory shared_;
  LaunchShape shape_;
  int64_t index_ = 0;
  const std::function<void()>* body_ = nullptr;
  std::string fault_;
  bool failed_ = false;
  uint64_t random_;
  int thread_ = 0;
  int num_done_ = 0;
  int num_at_barrier_ = 0;
  int64_t num_switches_ = 0;
  char start_tag_ = 0;
  char end_tag_ = 0;
  char block_tag_ = 0;
  Warp warps_[kMaxBlockThreads / kWarpThreads];
  char warp_tags_[kMaxBlockThreads / kWarpThreads] = {};
};

}  // namespace polyad::simt
