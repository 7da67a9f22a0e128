// The program: picks a command, and is the one place that names the backends.

#include <malloc.h>

#include <cstdio>
#include <string>
#include <vector>

#include "kernels/backend_factory.h"
#include "server/command.h"
#include "server/config.h"
#include "server/shell_help.h"

namespace polyad {
namespace {

int Dispatch(const std::string& command, const Arguments& args) {
  if (command == "serve") return RunServe(args, &MakeBackend);
  if (command == "generate") return RunGenerate(args, &MakeBackend);
  if (command == "inspect") return RunInspect(args, &MakeBackend);
  if (command == "bench") return RunBench(args);
  if (command == "quantize") return RunQuantize(args);
  if (command == "compress") return RunCompress(args, &MakeBackend);
  if (command == "perplexity") return RunPerplexity(args, &MakeBackend);
  if (command == "probe") return RunProbe(args);
  if (command == "admin") return RunAdmin(args);
  if (command == "check-config") return RunCheckConfig(args);
  if (command == "completions") return RunCompletions(args);
  if (command == "man") return RunMan(args);
  if (command == "version" || command == "--version") return RunVersion(args);
  if (command == "help" || command == "--help" || command == "-h") {
    std::fputs(UsageText().c_str(), stdout);
    return kExitOk;
  }
  std::vector<std::string> names;
  for (const CommandLine& line : Commands()) names.emplace_back(line.name);
  const std::string nearest = NearestName(command, names);
  std::fprintf(stderr, "polyad: command '%s': unknown%s\n", command.c_str(),
               nearest.empty() ? "" : ("; did you mean '" + nearest + "'?").c_str());
  return kExitUsage;
}

}  // namespace
}  // namespace polyad

int main(int argc, char** argv) {
  // Whole tensors and files come and go while models and adapters load. Mapped one by one they go
  // back to the system; with glibc's growing threshold they stay in its arenas, 185 MB of them
  // after 32 adapters (load_tests/measure.py).
  mallopt(M_MMAP_THRESHOLD, 512 * 1024);
  // The small ones of a load are wanted again by the next tensor: an arena keeps this much, where
  // 128 KiB would have it give pages back and ask for them again hundreds of times a load.
  mallopt(M_TRIM_THRESHOLD, 4 * 1024 * 1024);
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.empty()) {
    std::fputs(polyad::UsageText().c_str(), stderr);
    return polyad::kExitUsage;
  }
  return polyad::Dispatch(args.front(), {args.begin() + 1, args.end()});
}
