#pragma once

// A stack that code can leave and come back to: one per emulated GPU thread. The scheduler enters a
// fiber, and the fiber leaves again when it has to wait. x86-64 switches by a few instructions,
// other machines (and `portable`) by ucontext. AddressSanitizer and ThreadSanitizer are told of
// each switch; to ThreadSanitizer a fiber is a thread, and no switch orders memory. A fiber belongs
// to the OS thread that made it. Stacks have a guard page; running out of one faults.

#include <ucontext.h>

#include <cstddef>
#include <cstdint>

namespace polyad::simt {

class Fiber {
 public:
  using Body = void (*)(void* argument);

  explicit Fiber(bool portable);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next Enter begins body(argument). Where the body before it did not return, whatever stands
  // on the stack is forgotten.
  void Start(Body body, void* argument);
  void Enter();  // from the scheduler: runs the fiber until it leaves or its body returns
  void Leave();  // from the fiber: back to the scheduler

 private:
  static void Main();
  void Rewind();

  const bool portable_;
  unsigned char* memory_ = nullptr;
  Body body_ = nullptr;
  void* argument_ = nullptr;
  bool idle_ = false;  // waits in Main for the next body
  void* stack_pointer_ = nullptr;
  void* scheduler_stack_pointer_ = nullptr;
  ucontext_t context_ = {};
  ucontext_t scheduler_context_ = {};
  // What the sanitizers keep of either side.
  void* fake_stack_ = nullptr;
  [[maybe_unused]] void* scheduler_fake_stack_ = nullptr;
  [[maybe_unused]] const void* scheduler_stack_ = nullptr;
  [[maybe_unused]] size_t scheduler_stack_bytes_ = 0;
  [[maybe_unused]] void* thread_ = nullptr;
  [[maybe_unused]] void* scheduler_thread_ = nullptr;
};

// What orders the memory of fibers for ThreadSanitizer: everything before a Release of `tag`
// happens before everything after an Acquire that follows it. Nothing in other builds.
void Release(void* tag);
void Acquire(void* tag);

}  // namespace polyad::simt
