#pragma once

// A few threads and a bounded queue of tasks: adapter loads, waits of the admin port, HTTP
// handlers. TryRun never waits; a full queue refuses. The destructor closes. Threads that are to
// stand back behind the engine's take a niceness (setpriority(2): 1 to 19). Thread-safe.

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace polyad {

class WorkerPool {
 public:
  WorkerPool(size_t num_threads, size_t max_queued, int niceness = 0);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  bool TryRun(std::function<void()> task);
  // Refuses from now on, and returns when what was queued has run. Once, and from none of its
  // threads.
  void Close();

 private:
  void Work();

  const size_t max_queued_;
  const int niceness_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> tasks_;
  bool closed_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace polyad
