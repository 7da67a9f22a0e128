#include "kernels/cuda/staging.h"

#include <algorithm>
#include <cstring>

namespace polyad::cuda {

class Staging::Cutter {
 public:
  explicit Cutter(std::span<const StagedPiece> pieces) : pieces_(pieces) {}
  // Parts of the next `bytes` at most; none when all is cut.
  const std::vector<Part>& Next(int64_t bytes) {
    parts_.clear();
    for (int64_t filled = 0; filled < bytes && !pieces_.empty();) {
      const int64_t count = std::min(pieces_.front().bytes - begin_, bytes - filled);
      if (count > 0) parts_.push_back({pieces_.front().memory + begin_, filled, count});
      filled += count;
      begin_ += count;
      if (begin_ < pieces_.front().bytes) continue;
      pieces_ = pieces_.subspan(1);
      begin_ = 0;
    }
    return parts_;
  }

 private:
  std::span<const StagedPiece> pieces_;
  int64_t begin_ = 0;  // of what is left of the first piece
  std::vector<Part> parts_;
};

Staging::Staging(Device& device, QueueKind queue, int first_mark, int64_t lane_bytes)
    : device_(device), queue_(queue), lane_bytes_(lane_bytes), other_mark_(first_mark + kNumLanes) {
  for (Lane& lane : lanes_) {
    lane.pinned = static_cast<char*>(device.Allocate(Memory::kPinned, lane_bytes));
    lane.mark = first_mark++;
  }
}

Staging::~Staging() {
  Await(num_started_);
  for (const Lane& lane : lanes_) device_.Free(Memory::kPinned, lane.pinned);
}

bool Staging::refused() const {
  return std::any_of(lanes_.begin(), lanes_.end(),
                     [](const Lane& lane) { return lane.pinned == nullptr; });
}

// The lane that was started first, once its transfer is done.
Staging::Lane& Staging::Take() {
  Lane* first = nullptr;
  int64_t transfer = 0;
  {
    std::unique_lock lock(mutex_);
    const auto find = [&] {
      first = nullptr;
      for (Lane& lane : lanes_) {
        if (!lane.taken && (first == nullptr || lane.transfer < first->transfer)) first = &lane;
      }
      return first != nullptr;
    };
    released_.wait(lock, find);
    first->taken = true;
    transfer = first->transfer;
  }
  SIMT_UNLESS("queue.fills_a_lane_too_early") AwaitLane(*first, transfer);
  return *first;
}

void Staging::AwaitLane(const Lane& lane, int64_t transfer) {
  {
    const std::lock_guard lock(mutex_);
    if (num_done_ >= transfer) return;
  }
  device_.Await(lane.mark);
  const std::lock_guard lock(mutex_);
  num_done_ = std::max(num_done_, transfer);
}

int64_t Staging::Start(Lane& lane, std::span<const Part> parts, bool sends) {
  const std::lock_guard lock(mutex_);
  for (const Part& part : parts) {
    char* pinned = lane.pinned + part.at;
    device_.Copy(queue_, sends ? part.memory : pinned, sends ? pinned : part.memory, part.bytes);
  }
  device_.Mark(lane.mark, queue_);
  lane.transfer = ++num_started_;
  return lane.transfer;
}

void Staging::Release(Lane& lane) {
  {
    const std::lock_guard lock(mutex_);
    lane.taken = false;
  }
  released_.notify_one();
}

int64_t Staging::Send(std::span<const StagedPiece> to, const char* from) {
  Cutter cutter(to);
  int64_t sent = 0;
  for (;;) {
    const std::vector<Part>& parts = cutter.Next(lane_bytes_);
    if (parts.empty()) return sent;
    const int64_t bytes = parts.back().at + parts.back().bytes;
    Lane& lane = Take();
    std::memcpy(lane.pinned, from, static_cast<size_t>(bytes));
    from += bytes;
    sent = Start(lane, parts, /*sends=*/true);
    Release(lane);
  }
}

// Transfers of a queue end in their order, so any lane's that is not before this one will do.
void Staging::Await(int64_t sent) {
  const Lane* lane = nullptr;
  int64_t transfer = 0;
  {
    const std::lock_guard lock(mutex_);
    if (num_done_ >= sent) return;
    for (const Lane& own : lanes_) {
      if (own.transfer < sent || (lane != nullptr && own.transfer > transfer)) continue;
      lane = &own;
      transfer = own.transfer;
    }
  }
  AwaitLane(*lane, transfer);
}

void Staging::Fetch(std::span<const StagedPiece> from, char* to) {
  Cutter cutter(from);
  Lane* arriving = nullptr;
  int64_t arriving_bytes = 0;
  for (;;) {
    const std::vector<Part>& parts = cutter.Next(lane_bytes_);
    Lane* next = nullptr;
    if (!parts.empty()) {
      next = &Take();
      Start(*next, parts, /*sends=*/false);
    }
    const int64_t next_bytes = parts.empty() ? 0 : parts.back().at + parts.back().bytes;
    if (arriving != nullptr) {
      SIMT_UNLESS("queue.empties_a_lane_too_early") AwaitLane(*arriving, arriving->transfer);
      std::memcpy(to, arriving->pinned, static_cast<size_t>(arriving_bytes));
      to += arriving_bytes;
      Release(*arriving);
    }
    if (next == nullptr) return;
    arriving = next;
    arriving_bytes = next_bytes;
  }
}

void Staging::FollowQueue(QueueKind other) {
  device_.Mark(other_mark_, other);
  device_.Follow(queue_, other_mark_);
}

void Staging::Precede(QueueKind other) {
  device_.Mark(other_mark_, queue_);
  device_.Follow(other, other_mark_);
}

}  // namespace polyad::cuda
