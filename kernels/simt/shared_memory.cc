#include "kernels/simt/shared_memory.h"

#include <algorithm>

namespace polyad::simt {
namespace {

constexpr int64_t kAlignment = 16;

// Whether everything `before` did is done for `now`: the same thread, or a barrier of both since.
bool IsOrdered(const Toucher& before, const Toucher& now) {
  if (before.thread < 0 || before.thread == now.thread) return true;
  if (before.block_barriers != now.block_barriers) return true;
  return before.thread / kWarpThreads == now.thread / kWarpThreads &&
         before.warp_barriers != now.warp_barriers;
}

int64_t RoundUp(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

// Aligned by operator new, which gives 16 bytes.
SharedMemory::SharedMemory()
    : bytes_(new unsigned char[kMaxShared]), records_(new Record[kMaxShared / kGranule]) {}

void SharedMemory::Begin(int dynamic_bytes) {
  std::fill_n(records_.get(), (used_ + kGranule - 1) / kGranule, Record{});
  placed_.clear();
  dynamic_bytes_ = dynamic_bytes;
  used_ = RoundUp(dynamic_bytes);
}

int64_t SharedMemory::Place(const void* key, int64_t bytes) {
  for (const Placed& placed : placed_) {
    if (placed.key == key) return placed.offset;
  }
  const int64_t offset = used_;
  const int64_t statics = offset + bytes - RoundUp(dynamic_bytes_);
  if (statics > kMaxStaticShared || offset + bytes > kMaxShared) return -1;
  placed_.push_back({key, offset, bytes});
  used_ = RoundUp(offset + bytes);
  return offset;
}

const char* SharedMemory::Read(int64_t offset, int64_t bytes, const Toucher& by) {
  for (int64_t at = offset / kGranule; at < (offset + bytes) / kGranule; ++at) {
    Record& record = records_[at];
    if (record.copying) return "reads an asynchronous copy that was not waited for";
    if (record.writer.thread < 0) return "reads what nobody wrote";
    if (!IsOrdered(record.writer, by)) return "reads what another thread wrote, no barrier between";
    if (record.readers[0].thread != by.thread) record.readers[1] = record.readers[0];
    record.readers[0] = by;
  }
  return nullptr;
}

const char* SharedMemory::Write(int64_t offset, int64_t bytes, const Toucher& by) {
  for (int64_t at = offset / kGranule; at < (offset + bytes) / kGranule; ++at) {
    Record& record = records_[at];
    if (record.copying) return "writes where an asynchronous copy was not waited for";
    if (!IsOrdered(record.writer, by))
      return "writes where another thread wrote, no barrier between";
    for (const Toucher& reader : record.readers) {
      if (!IsOrdered(reader, by)) return "writes what another thread read, no barrier between";
    }
    record.writer = by;
    record.readers[0] = record.readers[1] = Toucher{};
  }
  return nullptr;
}

const char* SharedMemory::BeginCopy(int64_t offset, int64_t bytes, const Toucher& by) {
  const char* wrong = Write(offset, bytes, by);
  if (wrong != nullptr) return wrong;
  for (int64_t at = offset / kGranule; at < (offset + bytes) / kGranule; ++at) {
    records_[at].copying = true;
  }
  return nullptr;
}

void SharedMemory::EndCopy(int64_t offset, int64_t bytes, const Toucher& by) {
  for (int64_t at = offset / kGranule; at < (offset + bytes) / kGranule; ++at) {
    records_[at].copying = false;
    records_[at].writer = by;
  }
}

}  // namespace polyad::simt
