#include <algorithm>
#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/adapters/compress_model.h"
#include "engine/calibrate.h"
#include "engine/io/file.h"
#include "engine/load_tokenizer.h"
#include "engine/perplexity.h"
#include "server/command.h"
#include "server/config.h"
#include "server/engine_setup.h"
#include "server/field_error.h"

// `polyad compress`: a fine-tuned model as an adapter of its base, in a bit or a few per weight.

namespace polyad {
namespace {

constexpr char kUsage[] =
    "usage: polyad compress --base PATH --fine-tuned PATH --out DIR [flags]\n\n"
    "Writes what the fine-tune changed of its base as an adapter directory: the change of every\n"
    "matrix as signs with scales, all else that changed as it is, nothing of what did not. The\n"
    "base is taken as it is served, so a quantised one (GGUF too) is dequantised first.\n"
    "  --bits 1|2|3              planes of signs (default 1)\n"
    "  --scale tensor|row|group  what shares a scale (default row)\n"
    "  --group N                 inputs a scale at most (default 128)\n"
    "  --rest bf16|f32|int8      changed rows of embedding and head (default bf16)\n"
    "  --calibrate FILE          fits signs and scales to what they do on this text\n"
    "  --calibrate-tokens N      of it at most (default 8192)\n"
    "  --distil-tokens N         of it for one factor a plane, 0: none (default 256)\n"
    "  --text FILE               prints the perplexity of base, fine-tune and result on it\n"
    "and serve's flags for what runs the models, such as --threads and --dtype.\n"
    "No more than one pair of tensors is held in memory until the models are run.\n"
    "Exit codes: 0 success, 1 the work failed, 2 bad flag, 3 model refused.\n";

constexpr int64_t kMaxTextBytes = int64_t{64} << 20;

struct Ask {
  std::string fine_tuned;
  std::string text;
  std::string calibrate;
  int64_t calibrate_tokens = 0;
  CalibrateOptions calibration;
  CompressOptions compress;
  ServerConfig config;  // its model is the base
};

template <typename Value>
StatusOr<Value> Choice(OwnFlags& flags, const char* flag, Value absent,
                       std::initializer_list<std::pair<const char*, Value>> choices) {
  const auto word = flags.Take(flag);
  if (!word) return absent;
  std::string known;
  for (const auto& [name, value] : choices) {
    if (*word == name) return value;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  return FieldError(flag, "one of " + known, *word);
}

StatusOr<Ask> ParseAsk(const Arguments& args) {
  OwnFlags flags(args);
  Ask ask;
  const std::string base = flags.Take("base").value_or("");
  ask.fine_tuned = flags.Take("fine-tuned").value_or("");
  ask.compress.out = flags.Take("out").value_or("");
  while (ask.compress.out.size() > 1 && ask.compress.out.back() == '/') ask.compress.out.pop_back();
  ask.text = flags.Take("text").value_or("");
  ask.calibrate = flags.Take("calibrate").value_or("");
  ask.calibration.progress = ShowProgress;
  POLYAD_ASSIGN_OR_RETURN(ask.calibrate_tokens,
                          flags.TakeInt("calibrate-tokens", 8192, kWindowTokens, 1 << 24));
  POLYAD_ASSIGN_OR_RETURN(ask.calibration.distil_tokens,
                          flags.TakeInt("distil-tokens", 256, 0, kWindowTokens));
  PlaneOptions& planes = ask.compress.planes;
  POLYAD_ASSIGN_OR_RETURN(planes.num_planes, flags.TakeInt("bits", 1, 1, kMaxPlanes));
  POLYAD_ASSIGN_OR_RETURN(planes.group, flags.TakeInt("group", 128, 32, 65536));
  POLYAD_ASSIGN_OR_RETURN(planes.scale, Choice(flags, "scale", PlaneScale::kRow,
                                               {{"tensor", PlaneScale::kTensor},
                                                {"row", PlaneScale::kRow},
                                                {"group", PlaneScale::kGroup}}));
  POLYAD_ASSIGN_OR_RETURN(ask.compress.rest, Choice(flags, "rest", RestFormat::kBF16,
                                                    {{"bf16", RestFormat::kBF16},
                                                     {"f32", RestFormat::kF32},
                                                     {"int8", RestFormat::kInt8}}));
  if (base.empty()) return InvalidArgument("base: expected --base PATH");
  if (ask.fine_tuned.empty()) return InvalidArgument("fine-tuned: expected --fine-tuned PATH");
  if (ask.compress.out.empty()) return InvalidArgument("out: expected --out DIR");
  Arguments rest = flags.rest();
  rest.push_back("--model=" + base);
  POLYAD_ASSIGN_OR_RETURN(ask.config, LoadConfig(rest, ProcessEnvironment));
  POLYAD_RETURN_IF_ERROR(CheckConfig(ask.config));
  if (ask.config.backend != "cpu" && ask.config.backend != "reference") {
    return InvalidArgument("backend: compress takes cpu or reference, got \"%s\"",
                           ask.config.backend);
  }
  ask.config.log_level = "warning";
  return ask;
}

void Print(const CompressReport& report, const CompressOptions& options) {
  double error = 0;
  double squares = 0;
  for (const CompressReport::Layer& layer : report.layers) {
    std::printf("layer %-3lld relative error %.4f, %lld bytes\n",
                static_cast<long long>(layer.layer),
                layer.squares > 0 ? std::sqrt(layer.squared_error / layer.squares) : 0.0,
                static_cast<long long>(layer.bytes));
    error += layer.squared_error;
    squares += layer.squares;
  }
  std::printf("%lld matrices in %lld bit%s, relative error %.4f; %lld rows of tokens\n",
              static_cast<long long>(report.num_matrices),
              static_cast<long long>(options.planes.num_planes),
              options.planes.num_planes == 1 ? "" : "s",
              squares > 0 ? std::sqrt(error / squares) : 0.0,
              static_cast<long long>(report.num_token_rows));
  std::printf("%lld bytes; apart from embedding and head %lld of %lld in bf16: %.1f times less\n",
              static_cast<long long>(report.bytes), static_cast<long long>(report.bytes_of_layers),
              static_cast<long long>(report.bf16_bytes),
              static_cast<double>(report.bf16_bytes) /
                  static_cast<double>(std::max<int64_t>(1, report.bytes_of_layers)));
}

// The three perplexities, one model in memory at a time.
Status PrintPerplexities(const Ask& ask, PerplexityText scored, BackendMaker make_backend) {
  RealClock clock;
  ServerConfig config = ask.config;
  config.adapters = {"compressed=" + ask.compress.out};
  double base = 0;
  double compressed = 0;
  {
    POLYAD_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                            MakeEngine(config, make_backend, clock, nullptr));
    POLYAD_RETURN_IF_ERROR(LoadNamedAdapters(config, *engine));
    POLYAD_ASSIGN_OR_RETURN(base, Perplexity(*engine, "", scored));
    POLYAD_ASSIGN_OR_RETURN(compressed, Perplexity(*engine, "compressed", scored));
  }
  config.model = ask.fine_tuned;
  config.adapters.clear();
  POLYAD_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                          MakeEngine(config, make_backend, clock, nullptr));
  POLYAD_ASSIGN_OR_RETURN(const double fine_tuned, Perplexity(*engine, "", scored));
  std::printf("perplexity of %lld tokens: base %.4f, fine-tuned %.4f, compressed %.4f",
              static_cast<long long>(scored.tokens.size()), base, fine_tuned, compressed);
  if (base != fine_tuned) {
    std::printf(": %.1f%% of the way", 100 * (base - compressed) / (base - fine_tuned));
  }
  std::printf("\n");
  return absl::OkStatus();
}

// A text file's tokens, with the control tokens that it spells.
StatusOr<std::vector<int32_t>> ReadTokens(const std::string& path, const Tokenizer& tokenizer) {
  if (path.empty()) return std::vector<int32_t>();
  POLYAD_ASSIGN_OR_RETURN(const std::string text, ReadFileLimited(path, kMaxTextBytes));
  return tokenizer.Encode(text, {.add_special = false, .parse_special = true});
}

Status Calibrate(const Ask& ask, std::shared_ptr<const ModelDelta> models,
                 const std::vector<int32_t>& tokens, BackendMaker make_backend,
                 const std::string& directory) {
  BackendOptions exact;
  exact.mode = ComputeMode::kF32;
  exact.num_threads = static_cast<int>(ask.config.threads);
  exact.isa = ask.config.isa;
  POLYAD_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                          make_backend(ask.config.backend, exact));
  POLYAD_ASSIGN_OR_RETURN(
      const CalibrateReport report,
      CalibrateContainer(directory, std::move(models), *backend, tokens, ask.calibration));
  std::printf("calibrated: error of outputs %.4f, was %.4f; of logits %.4f, was %.4f\n",
              report.output_error, report.output_error_before, report.logit_error,
              report.logit_error_before);
  return absl::OkStatus();
}

Status Compress(const Ask& ask, BackendMaker make_backend) {
  PerplexityText scored;
  {
    POLYAD_ASSIGN_OR_RETURN(ModelDelta opened, ModelDelta::Open(ask.config.model, ask.fine_tuned));
    const auto models = std::make_shared<const ModelDelta>(std::move(opened));
    std::vector<int32_t> tokens;
    if (!ask.text.empty() || !ask.calibrate.empty()) {
      POLYAD_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(models->base().tokenizer()));
      POLYAD_ASSIGN_OR_RETURN(scored.tokens, ReadTokens(ask.text, *tokenizer));
      POLYAD_ASSIGN_OR_RETURN(tokens, ReadTokens(ask.calibrate, *tokenizer));
    }
    if (ask.text.empty() && !tokens.empty()) {  // the last tenth is held out
      const auto kept = static_cast<std::ptrdiff_t>(tokens.size() * 9 / 10);
      scored.tokens.assign(tokens.begin() + kept, tokens.end());
      tokens.resize(static_cast<size_t>(kept));
    }
    tokens.resize(std::min(tokens.size(), static_cast<size_t>(ask.calibrate_tokens)));
    CompressStep calibrate;
    if (!ask.calibrate.empty()) {
      calibrate = [&](const std::string& directory) {
        return Calibrate(ask, models, tokens, make_backend, directory);
      };
    }
    POLYAD_ASSIGN_OR_RETURN(const CompressReport report,
                            CompressModel(*models, ask.compress, ShowProgress, calibrate));
    Print(report, ask.compress);
  }
  if (scored.tokens.empty()) return absl::OkStatus();
  return PrintPerplexities(ask, std::move(scored), make_backend);
}

}  // namespace

int RunCompress(const Arguments& args, BackendMaker make_backend) {
  if (WantsHelp(args)) {
    std::fputs(kUsage, stdout);
    return kExitOk;
  }
  const auto ask = ParseAsk(args);
  if (!ask.ok()) return PrintError(ask.status(), kExitUsage);
  const Status status = Compress(*ask, make_backend);
  if (status.ok()) return kExitOk;
  const bool failed = status.code() == absl::StatusCode::kInternal;
  return PrintError(status, failed ? kExitFailed : kExitModel);
}

}  // namespace polyad
