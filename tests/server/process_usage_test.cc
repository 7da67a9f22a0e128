#include "server/process_usage.h"

#include <gtest/gtest.h>

#include <ctime>
#include <vector>

namespace polyad {
namespace {

TEST(ProcessUsageTest, MemoryThatIsTouchedIsResident) {
  const int64_t before = ReadProcessUsage().resident_bytes;
  const std::vector<char> bytes(size_t{64} << 20, 'x');
  const int64_t after = ReadProcessUsage().resident_bytes;
  EXPECT_EQ(bytes.back(), 'x');
  EXPECT_GT(before, 0);
  EXPECT_GE(after - before, int64_t{60} << 20);
}

TEST(ProcessUsageTest, TheProcessBeganNotLongAgoAndAlwaysThen) {
  const ProcessUsage first = ReadProcessUsage();
  const auto now = static_cast<double>(std::time(nullptr));
  EXPECT_LE(first.start_unix_s, now + 1);
  EXPECT_GE(first.start_unix_s, now - 600);
  EXPECT_EQ(ReadProcessUsage().start_unix_s, first.start_unix_s);
}

TEST(ProcessUsageTest, WorkTakesCpuTime) {
  const double before = ReadProcessUsage().cpu_seconds;
  while (ReadProcessUsage().cpu_seconds < before + 0.02) {
  }
  EXPECT_GT(ReadProcessUsage().cpu_seconds, before);
}

}  // namespace
}  // namespace polyad
