#pragma once

// The program's commands. Each takes the arguments after its name, writes its result to standard
// output and what went wrong to standard error, and returns the exit code.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "kernels/api/backend.h"

namespace polyad {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,        // the work itself failed
  kExitUsage = 2,         // a flag, environment variable or config file is wrong
  kExitModel = 3,         // the model or an adapter cannot be loaded
  kExitListen = 4,        // a port cannot be bound
  kExitInterrupted = 130  // ended by a second signal before it was done
};

inline constexpr char kVersion[] = "0.1.0";

using Arguments = std::vector<std::string>;
using BackendMaker = absl::StatusOr<std::unique_ptr<Backend>> (*)(std::string_view name,
                                                                  const BackendOptions& options);

int RunServe(const Arguments& args, BackendMaker make_backend);
int RunGenerate(const Arguments& args, BackendMaker make_backend);
int RunInspect(const Arguments& args, BackendMaker make_backend);
int RunBench(const Arguments& args);
int RunQuantize(const Arguments& args);
int RunCompress(const Arguments& args, BackendMaker make_backend);
int RunPerplexity(const Arguments& args, BackendMaker make_backend);
int RunProbe(const Arguments& args);
int RunAdmin(const Arguments& args);
int RunCheckConfig(const Arguments& args);
int RunCompletions(const Arguments& args);
int RunMan(const Arguments& args);
int RunVersion(const Arguments& args);

// A command's own flags, taken out of its arguments before the rest goes to LoadConfig.
class OwnFlags {
 public:
  explicit OwnFlags(Arguments args) : rest_(std::move(args)) {}
  std::optional<std::string> Take(std::string_view name);  // --name VALUE or --name=VALUE
  bool TakeSwitch(std::string_view name);                  // --name
  StatusOr<int64_t> TakeInt(std::string_view name, int64_t absent, int64_t min, int64_t max);
  StatusOr<double> TakeNumber(std::string_view name, double absent, double min, double max);
  const Arguments& rest() const { return rest_; }

 private:
  Arguments rest_;
};

bool WantsHelp(const Arguments& args);
int PrintError(const Status& status, int exit_code);  // returns exit_code
// A bar on a terminal; nothing where standard error is a file.
void ShowProgress(int64_t done, int64_t total);

}  // namespace polyad
