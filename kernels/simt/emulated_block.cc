#include "kernels/simt/emulated_block.h"

#include <cstring>
#include <utility>

namespace polyad::simt {
namespace {

thread_local EmulatedBlock* current = nullptr;

// splitmix64 (Steele, Lea and Flood 2014).
uint64_t NextRandom(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

}  // namespace

EmulatedBlock::EmulatedBlock(const EmulatorOptions& options)
    : options_(options),
      threads_(new Thread[kMaxBlockThreads]),
      order_(new int[kMaxBlockThreads]),
      random_(options.seed) {}

EmulatedBlock& EmulatedBlock::Current() { return *current; }

void EmulatedBlock::Begin(const LaunchShape& shape, int64_t index) {
  shape_ = shape;
  index_ = index;
  failed_ = false;
  num_done_ = 0;
  num_at_barrier_ = 0;
  for (Warp& warp : warps_) warp = {};
  shared_.Begin(shape.shared_bytes);
  while (fibers_.size() < static_cast<size_t>(shape.threads)) {
    fibers_.push_back(std::make_unique<Fiber>(options_.portable_switch));
  }
  for (int i = 0; i < shape.threads; ++i) {
    Thread& thread = threads_[static_cast<size_t>(i)];
    thread.state = State::kReady;
    thread.toucher = {static_cast<int16_t>(i), 0, 0};
    thread.num_copies = 0;
    thread.group = 0;
    order_[static_cast<size_t>(i)] = options_.order == Order::kReverse ? shape.threads - 1 - i : i;
    fibers_[static_cast<size_t>(i)]->Start(&EmulatedBlock::ThreadMain, this);
  }
}

void EmulatedBlock::MakeOrder() {
  if (options_.order != Order::kRandom) return;
  for (int i = shape_.threads - 1; i > 0; --i) {
    const auto j = static_cast<size_t>(NextRandom(random_) % static_cast<uint64_t>(i + 1));
    std::swap(order_[static_cast<size_t>(i)], order_[j]);
  }
}

std::string EmulatedBlock::Run(const LaunchShape& shape, int64_t index,
                               const std::function<void()>& body) {
  Begin(shape, index);
  body_ = &body;
  EmulatedBlock* const outer = std::exchange(current, this);
  Release(&start_tag_);
  while (num_done_ < shape.threads && !failed_) {
    MakeOrder();
    bool moved = false;
    for (int i = 0; i < shape.threads && !failed_; ++i) {
      thread_ = order_[static_cast<size_t>(i)];
      if (threads_[static_cast<size_t>(thread_)].state != State::kReady) continue;
      moved = true;
      ++num_switches_;
      fibers_[static_cast<size_t>(thread_)]->Enter();
    }
    if (!moved && !failed_) {
      failed_ = true;
      fault_ = DescribeDeadlock();
    }
  }
  Acquire(&end_tag_);
  current = outer;
  return failed_ ? fault_ : std::string();
}

void EmulatedBlock::ThreadMain(void* block) {
  auto& self = *static_cast<EmulatedBlock*>(block);
  Acquire(&self.start_tag_);
  (*self.body_)();
  Thread& thread = self.threads_[static_cast<size_t>(self.thread_)];
  if (thread.num_copies > 0) self.Fail("ends while its asynchronous copies are under way", 0);
  if (self.num_at_barrier_ > 0) self.Fail("ends while others wait at a block barrier", 0);
  thread.state = State::kDone;
  self.warps_[self.thread_ / kWarpThreads].ended_lane = self.thread_ % kWarpThreads;
  ++self.num_done_;
  Release(&self.end_tag_);
}

// Nothing on the abandoned stack may own memory.
void EmulatedBlock::Fail(const char* what, int line, const char* detail, int64_t number) {
  failed_ = true;
  fault_ = "block " + std::to_string(index_) + ", thread " + std::to_string(thread_);
  if (line > 0) fault_ += ", line " + std::to_string(line);
  fault_.append(": ").append(what).append(detail);
  if (number >= 0) fault_ += std::to_string(number);
  threads_[static_cast<size_t>(thread_)].state = State::kDone;
  Release(&end_tag_);
  fibers_[static_cast<size_t>(thread_)]->Leave();
  __builtin_unreachable();
}

// The scheduler sets thread_ again before it enters the fiber again.
void EmulatedBlock::Wait(State state, int line) {
  Thread& thread = threads_[static_cast<size_t>(thread_)];
  thread.state = state;
  thread.line = line;
  Release(&end_tag_);
  fibers_[static_cast<size_t>(thread_)]->Leave();
}

std::string EmulatedBlock::DescribeDeadlock() const {
  std::string text = "block " + std::to_string(index_) + ": threads wait for each other:";
  const Thread* last = nullptr;
  for (int i = 0; i < shape_.threads; ++i) {
    const Thread& thread = threads_[static_cast<size_t>(i)];
    if (thread.state == State::kDone) continue;
    if (last != nullptr && last->state == thread.state && last->line == thread.line) continue;
    last = &thread;
    text += " [thread " + std::to_string(i) + " at a " +
            (thread.state == State::kBlockBarrier ? "block barrier" : "warp operation") +
            ", line " + std::to_string(thread.line) + "]";
  }
  return text;
}

void EmulatedBlock::BlockBarrier(int line) {
  if (num_done_ > 0) Fail("waits at a block barrier that ended threads never reach", line);
  Thread& self = threads_[static_cast<size_t>(thread_)];
  Release(&block_tag_);
  if (++num_at_barrier_ < shape_.threads) {
    Wait(State::kBlockBarrier, line);
  } else {
    num_at_barrier_ = 0;
    for (int i = 0; i < shape_.threads; ++i) {
      Thread& other = threads_[static_cast<size_t>(i)];
      if (&other != &self && other.line != line) {
        Fail("threads meet at different block barriers, the other in line ", line, "", other.line);
      }
      other.state = State::kReady;
      ++other.toucher.block_barriers;
    }
  }
  Acquire(&block_tag_);
}

void EmulatedBlock::ReleaseWarp(int warp) {
  for (int lane = 0; lane < kWarpThreads; ++lane) {
    threads_[static_cast<size_t>(warp * kWarpThreads + lane)].state = State::kReady;
  }
}

void EmulatedBlock::WarpBarrier(int line) {
  const int warp = thread_ / kWarpThreads;
  Release(&warp_tags_[warp]);
  const auto synchronise = [](void* const*) {};
  WarpCall(synchronise, &threads_[static_cast<size_t>(thread_)], line);
  ++threads_[static_cast<size_t>(thread_)].toucher.warp_barriers;
  Acquire(&warp_tags_[warp]);
}

// A lane compares itself with the first one that waits, so that a call costs a warp 32 comparisons.
void EmulatedBlock::WarpCall(WarpFunction function, void* operand, int line) {
  const int index = thread_ / kWarpThreads;
  const int first_lane = index * kWarpThreads;
  Warp& warp = warps_[index];
  Thread& self = threads_[static_cast<size_t>(thread_)];
  self.operand = operand;
  self.function = function;
  self.line = line;
  if (warp.ended_lane >= 0) {
    Fail("takes part in a warp operation after the end of lane ", line, "", warp.ended_lane);
  }
  if (warp.num_waiting == 0) warp.first_thread = thread_;
  const Thread& first = threads_[static_cast<size_t>(warp.first_thread)];
  if (first.function != function || first.line != line) {
    Fail("lanes of one warp meet in different warp operations, the other in line ", line, "",
         first.line);
  }
  if (++warp.num_waiting < kWarpThreads) return Wait(State::kWarpCall, line);
  warp.num_waiting = 0;
  void* operands[kWarpThreads];
  for (int lane = 0; lane < kWarpThreads; ++lane) {
    operands[lane] = threads_[static_cast<size_t>(first_lane + lane)].operand;
  }
  function(operands);
  ReleaseWarp(index);
}

unsigned char* EmulatedBlock::Place(const void* key, int64_t bytes, const char* name) {
  const int64_t offset = shared_.Place(key, bytes);
  if (offset < 0) Fail("has no room for shared array ", 0, name);
  return shared_.At(offset);
}

unsigned char* EmulatedBlock::PlaceDynamic(int64_t offset, int64_t bytes) {
  if (offset < 0 || offset % 16 != 0 || offset + bytes > shared_.dynamic_bytes()) {
    Fail("takes dynamic shared memory that the launch did not ask for", 0);
  }
  return shared_.At(offset);
}

void EmulatedBlock::BeforeRead(const unsigned char* at, int64_t bytes, int line) {
  if (OffsetOf(at) % (bytes >= 4 ? (bytes < 16 ? bytes : 16) : 2) != 0) {
    Fail("reads shared memory at an address that is not aligned for it", line);
  }
  const char* wrong =
      shared_.Read(OffsetOf(at), bytes, threads_[static_cast<size_t>(thread_)].toucher);
  if (wrong != nullptr) Fail(wrong, line, " (shared memory)");
}

void EmulatedBlock::BeforeWrite(const unsigned char* at, int64_t bytes, int line) {
  if (OffsetOf(at) % (bytes >= 4 ? (bytes < 16 ? bytes : 16) : 2) != 0) {
    Fail("writes shared memory at an address that is not aligned for it", line);
  }
  const char* wrong =
      shared_.Write(OffsetOf(at), bytes, threads_[static_cast<size_t>(thread_)].toucher);
  if (wrong != nullptr) Fail(wrong, line, " (shared memory)");
}

void EmulatedBlock::CopyAsync(unsigned char* to, const void* from, int valid, int line) {
  Thread& self = threads_[static_cast<size_t>(thread_)];
  if (OffsetOf(to) % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0) {
    Fail("copies 16 bytes from or to an address that is not aligned for it", line);
  }
  if (valid < 0 || valid > 16) Fail("copies more than 16 bytes at once", line);
  if (self.num_copies == kMaxCopies) Fail("has too many asynchronous copies under way", line);
  const char* wrong = shared_.BeginCopy(OffsetOf(to), 16, self.toucher);
  if (wrong != nullptr) Fail(wrong, line, " (shared memory)");
  self.copies[self.num_copies++] = {to, from, valid, self.group};
}

void EmulatedBlock::CommitCopies() { ++threads_[static_cast<size_t>(thread_)].group; }

// Copies happen here and not a moment earlier, so that nobody can use what was not waited for.
void EmulatedBlock::WaitCopies(int still_running) {
  Thread& self = threads_[static_cast<size_t>(thread_)];
  int kept = 0;
  for (int i = 0; i < self.num_copies; ++i) {
    const Copy copy = self.copies[i];
    if (copy.group >= self.group - still_running) {
      self.copies[kept++] = copy;
      continue;
    }
    std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.valid));
    std::memset(copy.to + copy.valid, 0, static_cast<size_t>(16 - copy.valid));
    shared_.EndCopy(OffsetOf(copy.to), 16, self.toucher);
  }
  self.num_copies = kept;
}

}  // namespace polyad::simt
