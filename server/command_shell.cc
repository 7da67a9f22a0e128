#include <cstdio>

#include "server/command.h"
#include "server/shell_help.h"

namespace polyad {

int RunCompletions(const Arguments& args) {
  if (WantsHelp(args)) {
    std::printf(
        "usage: polyad completions bash|zsh|fish\n\n"
        "Prints a script for that shell. To have it in every session:\n"
        "  bash   polyad completions bash > /etc/bash_completion.d/polyad\n"
        "  zsh    polyad completions zsh > \"${fpath[1]}/_polyad\"\n"
        "  fish   polyad completions fish > ~/.config/fish/completions/polyad.fish\n"
        "Exit codes: 0 fine, 2 a shell it does not know.\n");
    return kExitOk;
  }
  const std::string script = args.size() == 1 ? CompletionScript(args[0]) : "";
  if (script.empty()) {
    std::fprintf(stderr, "polyad: completions: expected one of bash, zsh, fish\n");
    return kExitUsage;
  }
  std::fputs(script.c_str(), stdout);
  return kExitOk;
}

int RunMan(const Arguments& args) {
  if (WantsHelp(args)) {
    std::printf(
        "usage: polyad man\n\n"
        "Prints polyad(1): polyad man | man -l -, or into a file polyad.1 of a man path.\n");
    return kExitOk;
  }
  std::fputs(ManualPage().c_str(), stdout);
  return kExitOk;
}

}  // namespace polyad
