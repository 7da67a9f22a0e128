#pragma once

// Tells watchers when the set of adapters changes: one thread waits on the registry and sends the
// whole list to every stream, newest only, so that a slow watcher costs one list. Thread-safe; the
// destructor ends every watch.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "polyad/v1/adapter_admin.pb.h"
#include "server/adapter_registry.h"
#include "server/message_stream.h"

namespace polyad {

class AdapterWatch {
 public:
  using Stream = MessageStream<v1::WatchAdaptersResponse>;

  explicit AdapterWatch(const AdapterRegistry& registry);
  ~AdapterWatch();

  // Sends the list as it is now and goes on. RESOURCE_EXHAUSTED past 64 watchers.
  StatusOr<std::shared_ptr<Stream>> Add();

 private:
  void Run();
  void SendAll();
  v1::WatchAdaptersResponse Snapshot() const;

  const AdapterRegistry& registry_;
  // What every watcher has been sent. It is read before anyone can watch: the thread may first run
  // after a change.
  int64_t seen_;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::vector<std::shared_ptr<Stream>> streams_;
  std::thread thread_;
};

}  // namespace polyad
