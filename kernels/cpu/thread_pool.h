#pragma once

// A fork-join pool for one caller: the engine thread hands out numbered tasks and works on them
// itself until none is left. Tasks are taken from one counter, so a worker that the system has put
// aside delays nothing it has not begun. Workers spin for 50 us after a run, since the next phase
// of a layer comes within microseconds, then park. Which worker runs a task must never change its
// result.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace polyad::cpu {

class ThreadPool {
 public:
  using Task = absl::FunctionRef<void(int64_t task, int worker)>;

  // `num_threads` counts the caller; 0: one per core this process may run on.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls fn(task, worker) once for each task in [0, num_tasks), worker in [0, num_threads), and
  // returns when all have returned. One caller at a time; fn must not call Run.
  void Run(int64_t num_tasks, Task fn);

  // Within a task: returns when done() does so, which another thread brings about. Spins, then
  // offers the core.
  static void Await(absl::FunctionRef<bool()> done);

 private:
  struct Job {
    int64_t num_tasks = 0;
    const Task* fn = nullptr;
  };

  void Work(int worker);
  void TakeTasks(const Job& job, int worker);
  bool Enter();
  uint64_t AwaitRun(uint64_t seen);

  const int num_threads_;
  Job job_;  // written while the gate is shut, read inside it

  // epoch_ counts runs. gate_: bit 0 says open, the rest counts the workers inside. One cache line
  // each.
  alignas(64) std::atomic<uint64_t> epoch_{0};
  alignas(64) std::atomic<uint32_t> gate_{0};
  alignas(64) std::atomic<int64_t> next_task_{0};
  alignas(64) std::atomic<int> num_parked_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;  // only for parking
  std::condition_variable wake_;
  std::vector<std::thread> threads_;
};

}  // namespace polyad::cpu
