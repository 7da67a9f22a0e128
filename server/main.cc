// The program: picks a command, and is the one place that names the backends.

#include <malloc.h>

#include <cstdio>
#include <string>
#include <vector>

#include "kernels/backend_factory.h"
#include "server/command.h"
#include "server/config.h"

namespace polyad {
namespace {

constexpr char kUsage[] =
    "usage: polyad COMMAND [flags]\n\n"
    "  serve         serve a model and its adapters over gRPC and HTTP\n"
    "  generate      one prompt, no server\n"
    "  inspect       what an adapter or a model is and how it would be served\n"
    "  bench         open-loop load on a server\n"
    "  quantize      write a model's matrices in 8 or 4 bits\n"
    "  compress      write a fine-tuned model as an adapter of its base, a bit per weight\n"
    "  perplexity    how well a model foretells a text as it would be served\n"
    "  check-config  read the configuration and print what serve would use\n"
    "  version       print the version\n\n"
    "polyad COMMAND --help says more.\n"
    "Exit codes: 0 success, 1 the work failed, 2 bad flag or configuration, 3 model or adapter\n"
    "refused, 4 a port cannot be bound, 130 ended by a second signal.\n";

int Dispatch(const std::string& command, const Arguments& args) {
  if (command == "serve") return RunServe(args, &MakeBackend);
  if (command == "generate") return RunGenerate(args, &MakeBackend);
  if (command == "inspect") return RunInspect(args, &MakeBackend);
  if (command == "bench") return RunBench(args);
  if (command == "quantize") return RunQuantize(args);
  if (command == "compress") return RunCompress(args, &MakeBackend);
  if (command == "perplexity") return RunPerplexity(args, &MakeBackend);
  if (command == "check-config") return RunCheckConfig(args);
  if (command == "version" || command == "--version") return RunVersion(args);
  if (command == "help" || command == "--help" || command == "-h") {
    std::fputs(kUsage, stdout);
    return kExitOk;
  }
  const std::string nearest =
      NearestName(command, {"serve", "generate", "inspect", "bench", "quantize", "compress",
                            "perplexity", "check-config", "version"});
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
    std::fputs(polyad::kUsage, stderr);
    return polyad::kExitUsage;
  }
  return polyad::Dispatch(args.front(), {args.begin() + 1, args.end()});
}
