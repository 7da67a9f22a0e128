#include "kernels/simt/fiber.h"

#include <sys/mman.h>

#include <cstdlib>

#if defined(POLYAD_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(POLYAD_TSAN)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif

#if defined(__x86_64__)
// void polyad_simt_switch(void** save, void* load): pushes the registers that a call keeps, leaves
// the stack pointer in *save, takes the other one and pops its registers.
extern "C" void polyad_simt_switch(void** save, void* load);
asm(R"(
.text
.p2align 4
.globl polyad_simt_switch
.type polyad_simt_switch, @function
polyad_simt_switch:
  pushq %rbx
  pushq %rbp
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbp
  popq %rbx
  ret
.size polyad_simt_switch, . - polyad_simt_switch
)");
#endif

namespace polyad::simt {
namespace {

constexpr size_t kGuardBytes = 4096;
// A kernel's locals are registers of a GPU thread, at most 255 of four bytes; the rest is for
// sanitizers' padding and the reports they print.
constexpr size_t kStackBytes = size_t{128} * 1024;
constexpr int kSavedRegisters = 6;

thread_local Fiber* entered = nullptr;

#if defined(__x86_64__)
constexpr bool kHasSwitch = true;
#else
constexpr bool kHasSwitch = false;
#endif

}  // namespace

void Release([[maybe_unused]] void* tag) {
#if defined(POLYAD_TSAN)
  __tsan_release(tag);
#endif
}

void Acquire([[maybe_unused]] void* tag) {
#if defined(POLYAD_TSAN)
  __tsan_acquire(tag);
#endif
}

Fiber::Fiber(bool portable) : portable_(portable || !kHasSwitch) {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0) std::abort();
  memory_ = static_cast<unsigned char*>(memory);
#if defined(POLYAD_TSAN)
  thread_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
#if defined(POLYAD_TSAN)
  __tsan_destroy_fiber(thread_);
#endif
  munmap(memory_, kGuardBytes + kStackBytes);
}

void Fiber::Start(Body body, void* argument) {
  body_ = body;
  argument_ = argument;
  if (!idle_) Rewind();
  idle_ = false;
}

void Fiber::Rewind() {
#if defined(POLYAD_ASAN)
  ASAN_UNPOISON_MEMORY_REGION(memory_ + kGuardBytes, kStackBytes);
#endif
  fake_stack_ = nullptr;
  if (portable_) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = memory_ + kGuardBytes;
    context_.uc_stack.ss_size = kStackBytes;
    context_.uc_link = nullptr;
    makecontext(&context_, &Fiber::Main, 0);
    return;
  }
  // As polyad_simt_switch leaves a stack: registers, then where to return to; one more word keeps
  // the alignment that a function has on entry.
  auto** top = reinterpret_cast<void**>(memory_ + kGuardBytes + kStackBytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&Fiber::Main);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
  stack_pointer_ = top;
}

void Fiber::Main() {
  Fiber& self = *entered;
#if defined(POLYAD_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &self.scheduler_stack_, &self.scheduler_stack_bytes_);
#endif
  while (true) {
    self.body_(self.argument_);
    self.idle_ = true;
    self.Leave();
  }
}

void Fiber::Enter() {
  entered = this;
#if defined(POLYAD_TSAN)
  scheduler_thread_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(thread_, 1);  // 1: no order of memory
#endif
#if defined(POLYAD_ASAN)
  __sanitizer_start_switch_fiber(&scheduler_fake_stack_, memory_ + kGuardBytes, kStackBytes);
#endif
#if defined(__x86_64__)
  if (!portable_) polyad_simt_switch(&scheduler_stack_pointer_, stack_pointer_);
#endif
  if (portable_) swapcontext(&scheduler_context_, &context_);
#if defined(POLYAD_ASAN)
  __sanitizer_finish_switch_fiber(scheduler_fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::Leave() {
#if defined(POLYAD_TSAN)
  __tsan_switch_to_fiber(scheduler_thread_, 1);
#endif
#if defined(POLYAD_ASAN)
  __sanitizer_start_switch_fiber(&fake_stack_, scheduler_stack_, scheduler_stack_bytes_);
#endif
#if defined(__x86_64__)
  if (!portable_) polyad_simt_switch(&stack_pointer_, scheduler_stack_pointer_);
#endif
  if (portable_) swapcontext(&context_, &scheduler_context_);
#if defined(POLYAD_ASAN)
  __sanitizer_finish_switch_fiber(fake_stack_, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
}

}  // namespace polyad::simt
