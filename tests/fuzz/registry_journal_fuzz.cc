// Any bytes as a journal: frames and what lies between them make up the file to its last frame. Any
// record, framed after those bytes, is found and can be replayed.

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/base/check.h"
#include "server/registry_journal.h"

namespace {

void CheckWhole(const polyad::FramedRecords& read, size_t size) {
  size_t bytes = 0;
  for (const polyad::state::v1::Record& record : read.records) {
    bytes += polyad::FrameOf(record).size();
  }
  for (const std::string& damaged : read.damaged) bytes += damaged.size();
  POLYAD_CHECK(read.end <= static_cast<int64_t>(size), "frames lie inside the file");
  POLYAD_CHECK(read.records.empty() == (read.end == 0), "the end is a frame's");
  POLYAD_CHECK(read.damaged.size() <= read.records.size(), "damage lies before a frame");
  POLYAD_CHECK(read.damaged.empty() || bytes > 0, "damage has bytes");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const polyad::FramedRecords read = polyad::ReadFrames(bytes);
  CheckWhole(read, size);
  polyad::RegistryState state;
  for (const polyad::state::v1::Record& record : read.records) state.Apply(record);
  polyad::state::v1::Record record;
  if (!record.ParseFromArray(data, static_cast<int>(size))) return 0;
  const polyad::FramedRecords with = polyad::ReadFrames(bytes + polyad::FrameOf(record));
  POLYAD_CHECK(!with.records.empty(), "a whole frame is found behind any bytes");
  POLYAD_CHECK(with.records.back().ByteSizeLong() == record.ByteSizeLong(),
               "and read as it was written");  // maps have no order, so the bytes may differ
  state.Apply(with.records.back());
  return 0;
}
