#pragma once

// What shells and `man` are told of the program: completions and the manual page, made of the same
// tables that --help follows. Pure functions.

#include <string>
#include <string_view>
#include <vector>

namespace polyad {

struct CommandLine {
  const char* name;
  const char* does;
};
const std::vector<CommandLine>& Commands();

// What `polyad` says without a command.
std::string UsageText();

// A script for bash, zsh or fish; empty for any other. Flags and their choices are read from
// `polyad COMMAND --help` when they are completed, so a script need not be made anew for each
// version.
std::string CompletionScript(std::string_view shell);

// polyad(1), in the man macros: commands, every flag of serve, exit codes.
std::string ManualPage();

}  // namespace polyad
