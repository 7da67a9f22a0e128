#include "server/adapter_watch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "server/message_stream.h"
#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

// A registry in which no thread but the test's own gets on before `gate` is opened: the watch's
// thread as a busy machine may start it.
class GatedRegistry final : public FakeRegistry {
 public:
  int64_t WaitForChange(int64_t seen, int64_t wait_ms) const override {
    if (std::this_thread::get_id() != owner_) gate.wait(false);
    return FakeRegistry::WaitForChange(seen, wait_ms);
  }
  mutable std::atomic<bool> gate{false};

 private:
  const std::thread::id owner_ = std::this_thread::get_id();
};

// How many adapters the last list named, of a client that reads at once.
class Lists final : public MessageChannel {
 public:
  explicit Lists(StreamSource& source) : source_(source) {}
  void StartWrite(const google::protobuf::MessageLite& message) override {
    v1::WatchAdaptersResponse list;
    ASSERT_TRUE(list.ParseFromString(message.SerializeAsString()));
    num_adapters.store(list.adapters_size());
    source_.OnWritten(true);
  }
  void Finish(const Status&) override {}

  std::atomic<int> num_adapters{-1};

 private:
  StreamSource& source_;
};

TEST(AdapterWatchTest, AChangeBeforeItsThreadFirstRunsIsSent) {
  GatedRegistry registry;
  AdapterWatch watch(registry);
  const auto stream = watch.Add();
  ASSERT_TRUE(stream.ok());
  Lists lists(**stream);
  (*stream)->Start(lists);
  EXPECT_EQ(lists.num_adapters.load(), 0);
  LoadAdapterSpec spec;
  spec.name = "pirate";
  spec.path = "p";
  ASSERT_TRUE(registry.Load(spec, [](LoadState) {}).ok());
  registry.gate.store(true);
  registry.gate.notify_all();
  EXPECT_TRUE(Eventually([&] { return lists.num_adapters.load() == 1; }));
  EXPECT_EQ(lists.num_adapters.load(), 1);
  (*stream)->OnCancelled();
}

}  // namespace
}  // namespace polyad
