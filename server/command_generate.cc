#include <condition_variable>
#include <cstdio>
#include <mutex>

#include "server/command.h"
#include "server/config.h"
#include "server/engine_setup.h"

// `polyad generate`: one prompt through the engine in this process, its text to standard output as
// it comes.

namespace polyad {
namespace {

class PrintingSink final : public ResponseSink {
 public:
  bool OnEvent(TokenEvent event) override {
    if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
      std::fwrite(tokens->text.data(), 1, tokens->text.size(), stdout);
      std::fflush(stdout);
    } else if (const auto* finish = std::get_if<FinishEvent>(&event)) {
      std::lock_guard<std::mutex> lock(mutex_);
      finish_ = *finish;
      done_ = true;
      ready_.notify_all();
    }
    return true;
  }

  FinishEvent Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    ready_.wait(lock, [this] { return done_; });
    return finish_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  FinishEvent finish_;
  bool done_ = false;
};

struct Ask {
  v1::GenerateRequest request;
  ServerConfig config;
};

StatusOr<Ask> ParseAsk(const Arguments& args) {
  OwnFlags flags(args);
  Ask ask;
  const auto prompt = flags.Take("prompt");
  const auto use = flags.Take("use");
  if (flags.TakeSwitch("chat")) {
    v1::ChatMessage* message = ask.request.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content(prompt.value_or(""));
  } else {
    ask.request.set_text(prompt.value_or(""));
  }
  constexpr int64_t kDefaultTokens = 128;
  POLYAD_ASSIGN_OR_RETURN(const int64_t max_tokens,
                          flags.TakeInt("max-tokens", kDefaultTokens, 0, kMaxOutputTokens));
  POLYAD_ASSIGN_OR_RETURN(const double temperature, flags.TakeNumber("temperature", 0, 0, 100));
  POLYAD_ASSIGN_OR_RETURN(const double top_p, flags.TakeNumber("top-p", 1, 0, 1));
  POLYAD_ASSIGN_OR_RETURN(const int64_t seed, flags.TakeInt("seed", 0, 0, INT64_MAX));
  v1::Sampling* sampling = ask.request.mutable_sampling();
  sampling->set_temperature(static_cast<float>(temperature));
  sampling->set_top_p(static_cast<float>(top_p));
  sampling->set_seed(static_cast<uint64_t>(seed));
  ask.request.mutable_stopping()->set_max_tokens(max_tokens);
  POLYAD_ASSIGN_OR_RETURN(ask.config, LoadConfig(flags.rest(), ProcessEnvironment));
  POLYAD_RETURN_IF_ERROR(CheckConfig(ask.config));
  if (!prompt.has_value()) return InvalidArgument("prompt: expected --prompt TEXT");
  if (use.has_value()) {
    ask.request.set_model(*use);
  } else if (ask.config.adapters.size() == 1) {
    const std::string& adapter = ask.config.adapters.front();
    ask.request.set_model(adapter.substr(0, adapter.find('=')));
  }
  return ask;
}

int Generate(Ask ask, BackendMaker make_backend) {
  RealClock clock;
  ask.config.log_level = "warning";
  const auto engine = MakeEngine(ask.config, make_backend, clock, nullptr);
  if (!engine.ok()) return PrintError(engine.status(), kExitModel);
  if (const Status loaded = LoadNamedAdapters(ask.config, **engine); !loaded.ok()) {
    return PrintError(loaded, kExitModel);
  }
  auto spec = DecodeGenerate(ask.request, LimitsOf(ask.config, **engine));
  if (!spec.ok()) return PrintError(spec.status(), kExitUsage);
  auto sink = std::make_shared<PrintingSink>();
  const auto submitted = (*engine)->Submit(*std::move(spec), sink);
  if (!submitted.ok()) return PrintError(submitted.status(), kExitFailed);
  const FinishEvent finish = sink->Wait();
  std::fputc('\n', stdout);
  if (!finish.status.ok()) return PrintError(finish.status, kExitFailed);
  std::fprintf(stderr, "%lld prompt tokens in %.0f ms, %lld tokens in %.0f ms\n",
               static_cast<long long>(finish.usage.prompt_tokens), finish.timings.prefill_ms,
               static_cast<long long>(finish.usage.completion_tokens), finish.timings.decode_ms);
  return kExitOk;
}

}  // namespace

int RunGenerate(const Arguments& args, BackendMaker make_backend) {
  if (WantsHelp(args)) {
    std::printf(
        "usage: polyad generate --model PATH --prompt TEXT [flags]\n\n"
        "  --prompt TEXT        what to continue; with --chat, the user's message\n"
        "  --chat               through the model's chat template\n"
        "  --use NAME           the adapter that answers (default: the only --adapter, if there is "
        "one)\n"
        "  --max-tokens N       (default 128)\n"
        "  --temperature X      0 is greedy (default 0)\n"
        "  --top-p X            (default 1)\n"
        "  --seed N             (default 0)\n"
        "and the flags of serve that concern the model and the adapters.\n"
        "Exit codes: 0 done, 1 it failed, 2 bad flag, 3 model or adapter refused.\n");
    return kExitOk;
  }
  auto ask = ParseAsk(args);
  if (!ask.ok()) return PrintError(ask.status(), kExitUsage);
  return Generate(*std::move(ask), make_backend);
}

}  // namespace polyad
