#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <memory>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "server/bench_load.h"
#include "server/bench_output.h"
#include "server/command.h"
#include "server/field_error.h"

// `polyad bench`: open-loop load over gRPC or HTTP. Requests start when a trace or a Poisson
// process says so, whether or not earlier ones have answered, and are timed from that moment.

namespace polyad {
namespace {

constexpr std::string_view kHttp = "http://";
constexpr int64_t kMaxKeysBytes = 1 << 20;

struct BenchOptions {
  BenchLoad load;
  BenchTargets targets;
  bool http = false;
  bool table = false;
  double rate = 0;
  std::string json;  // files; empty: none
  std::string log;
};

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using OwnedFile = std::unique_ptr<std::FILE, CloseFile>;

std::vector<std::string> SplitNames(std::string_view text) {
  std::vector<std::string> names;
  while (!text.empty()) {
    const size_t end = std::min(text.find(','), text.size());
    if (end > 0) names.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return names;
}

// A JSON object: tenant to API key.
StatusOr<std::map<std::string, std::string>> ReadKeys(const std::string& path) {
  POLYAD_ASSIGN_OR_RETURN(const std::string text, ReadFileLimited(path, kMaxKeysBytes));
  POLYAD_ASSIGN_OR_RETURN(const Json json, ParseJson(text, path, {}));
  POLYAD_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, path));
  std::map<std::string, std::string> keys;
  for (const auto& member : json.items()) {
    POLYAD_ASSIGN_OR_RETURN(keys[member.key()], fields.String(member.key()));
  }
  return keys;
}

StatusOr<BenchMix> ParseMix(OwnFlags& flags) {
  BenchMix mix;
  mix.models = SplitNames(flags.Take("models").value_or(""));
  const std::string kind = flags.Take("mix").value_or("uniform");
  if (kind != "uniform" && kind != "zipf") return FieldError("mix", "uniform or zipf", kind);
  mix.zipf = kind == "zipf";
  POLYAD_ASSIGN_OR_RETURN(mix.rate, flags.TakeNumber("rate", 0, 0, 1e5));
  POLYAD_ASSIGN_OR_RETURN(mix.num_requests, flags.TakeInt("requests", 100, 1, 1'000'000));
  POLYAD_ASSIGN_OR_RETURN(const double seconds, flags.TakeNumber("duration-s", 0, 0, 86400));
  POLYAD_ASSIGN_OR_RETURN(mix.prompt_tokens, flags.TakeInt("prompt-tokens", 128, 1, 1 << 20));
  POLYAD_ASSIGN_OR_RETURN(mix.output_tokens, flags.TakeInt("output-tokens", 64, 1, 1 << 20));
  if (seconds > 0) {
    if (mix.rate == 0) return InvalidArgument("duration-s: expected with --rate");
    if (seconds * mix.rate > static_cast<double>(kMaxBenchRequests)) {
      return InvalidArgument("duration-s: expected at most %d requests", kMaxBenchRequests);
    }
    mix.num_requests = std::max<int64_t>(1, static_cast<int64_t>(seconds * mix.rate));
  }
  return mix;
}

Status ParseOutput(OwnFlags& flags, BenchOptions& out) {
  const std::string format = flags.Take("format").value_or("json");
  if (format != "json" && format != "table") return FieldError("format", "json or table", format);
  out.table = format == "table";
  out.json = flags.Take("json").value_or("");
  out.log = flags.Take("log").value_or("");
  POLYAD_ASSIGN_OR_RETURN(out.targets.ttft_ms, flags.TakeNumber("slo-ttft-ms", 0, 0, 1e9));
  POLYAD_ASSIGN_OR_RETURN(out.targets.tpot_ms, flags.TakeNumber("slo-tpot-ms", 0, 0, 1e9));
  POLYAD_ASSIGN_OR_RETURN(out.targets.e2el_ms, flags.TakeNumber("slo-e2e-ms", 0, 0, 1e9));
  return absl::OkStatus();
}

// Requests per second that the trace offers.
double OfferedRate(const BenchLoad& load) {
  const int64_t last_us = load.ArrivalUs(load.requests.back());
  if (last_us == 0) return 0;
  return static_cast<double>(load.requests.size()) * 1e6 / static_cast<double>(last_us);
}

StatusOr<BenchOptions> ParseOptions(const Arguments& args) {
  OwnFlags flags(args);
  BenchOptions out;
  out.load.target = flags.Take("target").value_or("127.0.0.1:50051");
  out.http = out.load.target.starts_with(kHttp);
  if (out.http) {
    out.load.target.erase(0, kHttp.size());
    if (out.load.target.ends_with('/')) out.load.target.pop_back();
  }
  out.load.api_key = flags.Take("api-key").value_or("");
  if (const auto path = flags.Take("tenant-keys")) {
    POLYAD_ASSIGN_OR_RETURN(out.load.tenant_keys, ReadKeys(*path));
  }
  out.load.llama_loras = SplitNames(flags.Take("llama-loras").value_or(""));
  if (!out.http && !out.load.llama_loras.empty()) {
    return InvalidArgument("llama-loras: expected with a target of http://");
  }
  POLYAD_ASSIGN_OR_RETURN(BenchMix mix, ParseMix(flags));
  POLYAD_ASSIGN_OR_RETURN(out.load.vocab_size, flags.TakeInt("vocab-size", 32000, 32, 1 << 21));
  POLYAD_ASSIGN_OR_RETURN(const int64_t seed, flags.TakeInt("seed", 1, 0, INT64_MAX));
  POLYAD_ASSIGN_OR_RETURN(out.load.speed, flags.TakeNumber("speed", 1, 1e-3, 1e3));
  POLYAD_ASSIGN_OR_RETURN(const double timeout_s, flags.TakeNumber("timeout-s", 600, 0.001, 86400));
  out.load.timeout_ms = static_cast<int64_t>(timeout_s * 1e3);
  out.load.seed = mix.seed = static_cast<uint64_t>(seed);
  const auto trace = flags.Take("trace");
  POLYAD_RETURN_IF_ERROR(ParseOutput(flags, out));
  if (!flags.rest().empty()) {
    return InvalidArgument("argument '%s': unknown (see --help)", flags.rest().front());
  }
  if (trace.has_value()) {
    POLYAD_ASSIGN_OR_RETURN(const std::string text, ReadFileLimited(*trace, kMaxBenchTraceBytes));
    POLYAD_ASSIGN_OR_RETURN(out.load.requests, ParseBenchTrace(text, *trace));
    out.rate = OfferedRate(out.load);
  } else {
    out.load.requests = MakeBenchTrace(mix);
    out.rate = mix.rate * out.load.speed;
  }
  return out;
}

double ProcessorSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

int64_t UnixMicros(BenchTime time) {
  const auto ago = std::chrono::steady_clock::now() - time;
  const auto since_1970 = (std::chrono::system_clock::now() - ago).time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(since_1970).count();
}

StatusOr<OwnedFile> OpenForWriting(const std::string& path) {
  if (path.empty()) return OwnedFile();
  OwnedFile file(std::fopen(path.c_str(), "we"));
  if (file == nullptr) return FailedPrecondition("%s: cannot be written", path);
  return file;
}

StatusOr<BenchResult> RunLoad(const BenchOptions& options, std::FILE* log) {
  BenchStats stats(options.targets);
  const auto sink = [&stats, log](const BenchRequest& request, const BenchOutcome& outcome) {
    stats.Add(request, outcome);
    if (log != nullptr) std::fputs(BenchLogLine(request, outcome).c_str(), log);
  };
  const BenchTime begin = std::chrono::steady_clock::now();
  const double busy_before = ProcessorSeconds();
  BenchTime arrivals_from;
  if (options.http) {
    POLYAD_ASSIGN_OR_RETURN(arrivals_from, RunHttpLoad(options.load, sink));
  } else {
    arrivals_from = RunGrpcLoad(options.load, sink);
  }
  BenchResult result = stats.Take();
  result.started_unix_us = UnixMicros(arrivals_from);
  result.duration_s =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  result.client_cores = (ProcessorSeconds() - busy_before) / std::max(result.duration_s, 1e-9);
  result.request_rate = options.rate;
  result.backend = options.http ? "polyad-http" : "polyad-grpc";
  return result;
}

Status RunAndReport(const BenchOptions& options, bool& failed) {
  // Opened before the load: a path that cannot be written must not cost a run.
  POLYAD_ASSIGN_OR_RETURN(const OwnedFile log, OpenForWriting(options.log));
  POLYAD_ASSIGN_OR_RETURN(const OwnedFile json, OpenForWriting(options.json));
  POLYAD_ASSIGN_OR_RETURN(const BenchResult result, RunLoad(options, log.get()));
  const std::string text = BenchJson(result);
  std::fputs((options.table ? BenchTable(result) : text).c_str(), stdout);
  if (json != nullptr) std::fputs(text.c_str(), json.get());
  if (!result.first_error.empty()) {
    std::fprintf(stderr, "polyad: the first failure: %s\n", result.first_error.c_str());
  }
  for (const OwnedFile* file : {&log, &json}) {
    if (*file != nullptr && (std::fflush(file->get()) != 0 || std::ferror(file->get()) != 0)) {
      return FailedPrecondition("json, log: cannot be written");
    }
  }
  failed = result.total.failed + result.total.refused > 0;
  return absl::OkStatus();
}

void PrintHelp() {
  std::printf(
      "usage: polyad bench [flags]\n\n"
      "Open-loop load on a server; times count from when a request should have arrived.\n"
      "  --target ADDRESS     HOST:PORT of gRPC or http://HOST:PORT (default 127.0.0.1:50051)\n"
      "  --trace FILE         requests as JSON lines (load_tests/workloads.py), instead of:\n"
      "  --rate X             requests per second, Poisson; 0: all at once (default 0)\n"
      "  --requests N         (default 100), or --duration-s X with --rate\n"
      "  --prompt-tokens N    random ids, different in every request (default 128)\n"
      "  --output-tokens N    exactly, past any end of sequence (default 64)\n"
      "  --models A,B,...     adapters to choose among (default: the base model)\n"
      "  --mix uniform|zipf   how (default uniform)\n\n"
      "  --speed X            arrivals X times as fast (default 1)\n"
      "  --vocab-size N       ids are drawn below this (default 32000)\n"
      "  --seed N             (default 1)\n"
      "  --timeout-s X        of one request (default 600)\n"
      "  --api-key KEY        of every request\n"
      "  --tenant-keys FILE   JSON object, tenant of the trace to API key\n"
      "  --llama-loras A,B,.. the target is llama.cpp's server, whose --lora files these are\n"
      "  --slo-ttft-ms X, --slo-tpot-ms X, --slo-e2e-ms X\n"
      "                       what a good answer keeps, for goodput (default: no limit)\n"
      "  --format json|table  of standard output (default json, with vLLM's keys)\n"
      "  --json FILE          the JSON as well\n"
      "  --log FILE           a JSON line per request\n"
      "Exit codes: 0 every request succeeded or was cancelled as the trace asked, 1 some failed,\n"
      "2 bad flag or trace.\n");
}

}  // namespace

int RunBench(const Arguments& args) {
  if (WantsHelp(args)) {
    PrintHelp();
    return kExitOk;
  }
  const auto options = ParseOptions(args);
  if (!options.ok()) return PrintError(options.status(), kExitUsage);
  bool failed = false;
  const Status status = RunAndReport(*options, failed);
  if (!status.ok()) return PrintError(status, kExitUsage);
  return failed ? kExitFailed : kExitOk;
}

}  // namespace polyad
