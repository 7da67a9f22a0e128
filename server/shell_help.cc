#include "server/shell_help.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>

#include "server/command.h"
#include "server/config.h"

namespace polyad {
namespace {

constexpr char kExitCodes[] =
    "Exit codes: 0 success, 1 the work failed, 2 bad flag or configuration, 3 model or adapter\n"
    "refused, 4 a port cannot be bound, 130 ended by a second signal.\n";

// zsh runs it by its own emulation of bash's completion.
constexpr char kBash[] = R"sh(_polyad() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} help choices
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "@COMMANDS@ help" -- "$current"))
    return
  fi
  if [ "${COMP_WORDS[1]}" = completions ]; then
    COMPREPLY=($(compgen -W "bash zsh fish" -- "$current"))
    return
  fi
  help=$("${COMP_WORDS[0]}" "${COMP_WORDS[1]}" --help 2>/dev/null)
  case $help in
    *"flags of serve"*|*"serve's flags"*) help="$help $("${COMP_WORDS[0]}" serve --help)" ;;
  esac
  case $previous in
    --*)
      choices=$(printf '%s\n' "$help" |
        sed -n "s/^ *$previous \([a-z0-9]*[|\/][^ ]*\).*/\1/p" | tr '|/' '  ')
      if [ -n "$choices" ]; then
        COMPREPLY=($(compgen -W "$choices" -- "$current"))
        return
      fi ;;
  esac
  case $current in
    -*)
      choices=$(printf '%s\n' "$help" | grep -oE -- '--[a-z][a-z0-9-]*' | sort -u)
      COMPREPLY=($(compgen -W "$choices" -- "$current")) ;;
  esac
}
complete -o default -F _polyad polyad
)sh";

constexpr char kFish[] = R"sh(function __polyad_words
    set -l words (commandline -opc)
    set -l text ($words[1] $words[2] --help 2>/dev/null)
    if string match -qr "flags of serve|serve's flags" -- $text
        set text $text ($words[1] serve --help)
    end
    set -l choices (string match -r -- "^ *$words[-1] ([a-z0-9]*[|/][^ ]*)" $text)[2]
    if test (count $words) -gt 2; and test -n "$choices"
        string split / -- (string replace -a '|' / -- $choices)
    else
        string match -ra -- '--[a-z][a-z0-9-]*' $text | sort -u
    end
end
complete -c polyad -n 'not __fish_use_subcommand' -a '(__polyad_words)'
complete -c polyad -n '__fish_seen_subcommand_from completions' -f -a 'bash zsh fish'
)sh";

// A line of prose as roff has it: backslashes doubled, no line begins with a control character.
std::string Roff(const std::string& text) {
  std::string escaped = absl::StrReplaceAll(text, {{"\\", "\\e"}, {"-", "\\-"}});
  if (escaped.starts_with('.') || escaped.starts_with('\'')) escaped.insert(0, "\\&");
  return escaped;
}

std::string FlagEntry(const Knob& knob) {
  std::string kind = *knob.choices != '\0' ? knob.choices
                     : *knob.unit != '\0'  ? knob.unit
                                           : "VALUE";
  const std::string absent = KnobDefault(knob);
  std::string entry = absl::StrCat(".TP\n\\fB", Roff(absl::StrCat("--", knob.name)), "\\fR \\fI",
                                   Roff(kind), "\\fR\n", Roff(knob.doc), "\n");
  if (!absent.empty()) absl::StrAppend(&entry, "Default: ", Roff(absent), ".\n");
  return entry;
}

}  // namespace

const std::vector<CommandLine>& Commands() {
  static const std::vector<CommandLine>& commands = *new std::vector<CommandLine>{
      {"serve", "serve a model and its adapters over gRPC and HTTP"},
      {"generate", "one prompt, no server"},
      {"inspect", "what an adapter or a model is and how it would be served"},
      {"bench", "open-loop load on a server"},
      {"probe", "whether a server is ready"},
      {"admin", "the admin port's calls: load, list, pin, unload adapters, drain"},
      {"quantize", "write a model's matrices in 8 or 4 bits"},
      {"compress", "write a fine-tuned model as an adapter of its base, a bit per weight"},
      {"perplexity", "how well a model foretells a text as it would be served"},
      {"check-config", "read the configuration and print what serve would use"},
      {"completions", "what bash, zsh or fish need to complete commands and flags"},
      {"man", "print the manual page"},
      {"version", "print the version"},
  };
  return commands;
}

std::string UsageText() {
  std::string text = "usage: polyad COMMAND [flags]\n\n";
  for (const CommandLine& command : Commands()) {
    std::string name = command.name;
    name.resize(12, ' ');
    absl::StrAppend(&text, "  ", name, "  ", command.does, "\n");
  }
  absl::StrAppend(&text, "\npolyad COMMAND --help says more.\n", kExitCodes);
  return text;
}

std::string CompletionScript(std::string_view shell) {
  std::string names;
  for (const CommandLine& command : Commands()) {
    absl::StrAppend(&names, names.empty() ? "" : " ", command.name);
  }
  const std::string bash = absl::StrReplaceAll(kBash, {{"@COMMANDS@", names}});
  if (shell == "bash") return bash;
  if (shell == "zsh") {
    return absl::StrCat("#compdef polyad\nautoload -U +X bashcompinit && bashcompinit\n", bash);
  }
  if (shell != "fish") return "";
  std::string fish = kFish;
  for (const CommandLine& command : Commands()) {
    absl::StrAppend(&fish, "complete -c polyad -f -n __fish_use_subcommand -a ", command.name,
                    " -d '", absl::StrReplaceAll(command.does, {{"'", "\\'"}}), "'\n");
  }
  return fish;
}

std::string ManualPage() {
  std::string page = absl::StrCat(
      ".TH POLYAD 1 \"\" \"polyad ", kVersion, "\" \"User Commands\"\n.SH NAME\n",
      "polyad \\- serve one frozen base model to many tenants, each with its own fine\\-tune\n",
      ".SH SYNOPSIS\n.B polyad\n.I COMMAND\n.RI [ flags ]\n.SH COMMANDS\n");
  for (const CommandLine& command : Commands()) {
    absl::StrAppend(&page, ".TP\n.B ", Roff(command.name), "\n", Roff(command.does), "\n");
  }
  absl::StrAppend(&page, ".PP\n", Roff("polyad COMMAND --help says more of each."),
                  "\n.SH FLAGS OF SERVE\n", "Each is also POLYAD_<FLAG> in the environment and a ",
                  "key of the JSON file that\n\\fB", Roff("--config"),
                  "\\fR names; flags beat the environment, which beats the file.\n");
  for (const Knob& knob : Knobs()) absl::StrAppend(&page, FlagEntry(knob));
  absl::StrAppend(&page, ".SH SIGNALS\n",
                  "SIGTERM and SIGINT drain and end; a second one ends at once. SIGHUP reads ",
                  "credentials again.\n.SH EXIT STATUS\n", Roff(kExitCodes));
  return page;
}

}  // namespace polyad
