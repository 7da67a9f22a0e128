#include <cstdio>
#include <string>

#include "engine/io/file.h"
#include "engine/perplexity.h"
#include "server/command.h"
#include "server/config.h"
#include "server/engine_setup.h"

// `polyad perplexity`: how well a model foretells a text as it would be served, to hold one setting
// of serve's flags against another.

namespace polyad {
namespace {

constexpr char kUsage[] =
    "usage: polyad perplexity --model PATH --text FILE [flags of serve]\n\n"
    "Prints exp of the mean of -log p over the text, cut into windows that are scored each by\n"
    "itself. To learn what a format costs, run it once with --kv-dtype bf16 and once with int4.\n"
    "  --text FILE   plain text\n"
    "  --window N    tokens of a window (default 2048, at most what the model takes)\n"
    "  --use NAME    of the adapter that answers; default: the only one of --adapter, or the base\n"
    "Exit codes: 0 success, 1 the text cannot be scored, 2 bad flag, 3 model or adapter refused.\n";

constexpr int64_t kMaxTextBytes = int64_t{4} << 20;  // of one prompt: --max-prompt-kib at its most

struct Ask {
  std::string text;
  std::string use;
  int64_t window = 0;
  ServerConfig config;
};

StatusOr<Ask> ParseAsk(const Arguments& args) {
  OwnFlags flags(args);
  Ask ask;
  ask.text = flags.Take("text").value_or("");
  const auto use = flags.Take("use");
  POLYAD_ASSIGN_OR_RETURN(ask.window, flags.TakeInt("window", 2048, 2, 1 << 20));
  POLYAD_ASSIGN_OR_RETURN(ask.config, LoadConfig(flags.rest(), ProcessEnvironment));
  POLYAD_RETURN_IF_ERROR(CheckConfig(ask.config));
  if (ask.text.empty()) return InvalidArgument("text: expected --text FILE");
  if (use.has_value()) {
    ask.use = *use;
  } else if (ask.config.adapters.size() == 1) {
    const std::string& adapter = ask.config.adapters.front();
    ask.use = adapter.substr(0, adapter.find('='));
  }
  return ask;
}

Status Score(const Ask& ask, Engine& engine) {
  POLYAD_ASSIGN_OR_RETURN(const std::string text, ReadFileLimited(ask.text, kMaxTextBytes));
  PerplexityText scored;
  scored.window = ask.window;
  POLYAD_ASSIGN_OR_RETURN(scored.tokens, engine.Tokenize(text, /*add_special=*/false));
  POLYAD_ASSIGN_OR_RETURN(const double perplexity, Perplexity(engine, ask.use, scored));
  const ModelInfo& info = engine.model_info();
  std::printf("perplexity %.5f of %lld tokens, K/V in %s, %lld bytes a token\n", perplexity,
              static_cast<long long>(scored.tokens.size()), info.kv_format.c_str(),
              static_cast<long long>(info.kv_bytes_per_token));
  return absl::OkStatus();
}

}  // namespace

int RunPerplexity(const Arguments& args, BackendMaker make_backend) {
  if (WantsHelp(args)) {
    std::fputs(kUsage, stdout);
    return kExitOk;
  }
  StatusOr<Ask> ask = ParseAsk(args);
  if (!ask.ok()) return PrintError(ask.status(), kExitUsage);
  RealClock clock;
  ask->config.log_level = "warning";
  const auto engine = MakeEngine(ask->config, make_backend, clock, nullptr);
  if (!engine.ok()) return PrintError(engine.status(), kExitModel);
  if (const Status loaded = LoadNamedAdapters(ask->config, **engine); !loaded.ok()) {
    return PrintError(loaded, kExitModel);
  }
  const Status scored = Score(*ask, **engine);
  return scored.ok() ? kExitOk : PrintError(scored, kExitFailed);
}

}  // namespace polyad
