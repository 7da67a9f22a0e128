#include "server/process_usage.h"

#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

namespace polyad {
namespace {

double SecondsOf(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

// proc(5): the 22nd field is the start, in ticks since the machine's; the name in parentheses,
// which may hold spaces, is the second.
double ReadStart() {
  constexpr int kFieldsToStart = 19;  // between the name and the start
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  const size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(line.substr(name_end + 1));
  std::string skipped;
  for (int i = 0; i < kFieldsToStart; ++i) fields >> skipped;
  double ticks = 0;
  fields >> ticks;
  timespec now = {};
  timespec since_boot = {};
  clock_gettime(CLOCK_REALTIME, &now);
  clock_gettime(CLOCK_BOOTTIME, &since_boot);
  const double boot = static_cast<double>(now.tv_sec - since_boot.tv_sec) +
                      static_cast<double>(now.tv_nsec - since_boot.tv_nsec) / 1e9;
  return boot + ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

}  // namespace

ProcessUsage ReadProcessUsage() {
  static const double start_unix_s = ReadStart();
  ProcessUsage usage;
  usage.start_unix_s = start_unix_s;
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0;
  if (statm >> pages >> pages) usage.resident_bytes = pages * sysconf(_SC_PAGESIZE);
  rusage used = {};
  if (getrusage(RUSAGE_SELF, &used) == 0) {
    usage.cpu_seconds = SecondsOf(used.ru_utime) + SecondsOf(used.ru_stime);
  }
  return usage;
}

}  // namespace polyad
