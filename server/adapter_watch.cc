#include "server/adapter_watch.h"

#include "server/adapter_codec.h"

namespace polyad {
namespace {

constexpr size_t kMaxWatchers = 64;
constexpr size_t kMaxWatchBytes = 64 << 20;
constexpr int64_t kPollMs = 200;  // how soon a stop is noticed

Status TooLong() {
  return ResourceExhausted("adapters: expected a list of at most %d bytes, got a longer one",
                           kMaxWatchBytes);
}

}  // namespace

AdapterWatch::AdapterWatch(const AdapterRegistry& registry)
    : registry_(registry), seen_(registry.WaitForChange(-1, 0)), thread_([this] { Run(); }) {}

AdapterWatch::~AdapterWatch() {
  stop_.store(true);
  thread_.join();
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& stream : streams_) {
    stream->Close(Status(absl::StatusCode::kUnavailable, std::string("server: stopping")));
  }
}

StatusOr<std::shared_ptr<AdapterWatch::Stream>> AdapterWatch::Add() {
  auto stream = std::make_shared<Stream>(kMaxWatchBytes);
  std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(streams_, [](const auto& other) { return other->closed(); });
  if (streams_.size() >= kMaxWatchers) {
    return ResourceExhausted("watchers: at most %d at a time", kMaxWatchers);
  }
  if (!stream->Send(Snapshot())) return TooLong();
  streams_.push_back(stream);
  return stream;
}

void AdapterWatch::Run() {
  while (!stop_.load()) {
    const int64_t now = registry_.WaitForChange(seen_, kPollMs);
    if (now == seen_) continue;
    seen_ = now;
    SendAll();
  }
}

void AdapterWatch::SendAll() {
  std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(streams_, [](const auto& stream) { return stream->closed(); });
  if (streams_.empty()) return;
  const v1::WatchAdaptersResponse snapshot = Snapshot();
  for (const auto& stream : streams_) {
    if (!stream->Replace(snapshot)) stream->Close(TooLong());  // or it would believe the old one
  }
}

v1::WatchAdaptersResponse AdapterWatch::Snapshot() const {
  v1::WatchAdaptersResponse response;
  for (AdapterInfo& adapter : registry_.List()) {
    adapter.defaults.reset();  // hundreds of KiB each
    EncodeAdapter(adapter, *response.add_adapters());
  }
  return response;
}

}  // namespace polyad
