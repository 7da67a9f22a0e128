#include <grpcpp/create_channel.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <random>
#include <thread>

#include "polyad/v1/inference.grpc.pb.h"
#include "server/bench_stats.h"
#include "server/command.h"
#include "server/field_error.h"

// `polyad bench`: open-loop load over gRPC. Requests start when a Poisson process says so, whether
// or not earlier ones have answered, and are timed from that moment.

namespace polyad {
namespace {

using SteadyClock = std::chrono::steady_clock;
using TimePoint = SteadyClock::time_point;

struct BenchOptions {
  std::string target = "127.0.0.1:50051";
  double rate = 0;  // requests per second; 0: all at once
  int64_t num_requests = 100;
  int64_t prompt_tokens = 128;
  int64_t output_tokens = 64;
  int64_t vocab_size = 32000;
  int64_t seed = 1;
  bool zipf = false;
  std::vector<std::string> models;  // chosen among; empty: the base model
  std::string api_key;
};

double MillisBetween(TimePoint begin, TimePoint end) {
  return std::chrono::duration<double, std::milli>(end - begin).count();
}

// Collects what calls measured; outlives them.
class Collector {
 public:
  void Done(bool ok, const BenchResult& one) {
    std::lock_guard<std::mutex> lock(mutex_);
    ++num_done_;
    ++(ok ? total_.completed : total_.failed);
    if (ok) Merge(one);
    changed_.notify_all();
  }
  BenchResult Wait(int64_t num_requests) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return num_done_ == num_requests; });
    return total_;
  }

 private:
  void Merge(const BenchResult& one) {
    total_.input_tokens += one.input_tokens;
    total_.output_tokens += one.output_tokens;
    const auto append = [](const std::vector<double>& from, std::vector<double>& to) {
      to.insert(to.end(), from.begin(), from.end());
    };
    append(one.ttft_ms, total_.ttft_ms);
    append(one.tpot_ms, total_.tpot_ms);
    append(one.itl_ms, total_.itl_ms);
    append(one.e2el_ms, total_.e2el_ms);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  BenchResult total_;
  int64_t num_done_ = 0;
};

// One request; deletes itself when it has ended.
class Call final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Call(v1::InferenceService::Stub& stub, v1::GenerateRequest request, const std::string& api_key,
       TimePoint scheduled, Collector& collector)
      : request_(std::move(request)), scheduled_(scheduled), collector_(collector) {
    if (!api_key.empty()) context_.AddMetadata("authorization", "Bearer " + api_key);
    stub.async()->Generate(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (response_.has_delta()) {
      NoteTokens(response_.delta().token_ids_size());
    } else if (response_.has_finish()) {
      one_.input_tokens = response_.finish().usage().prompt_tokens();
      one_.output_tokens = response_.finish().usage().completion_tokens();
    }
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    one_.e2el_ms.push_back(MillisBetween(scheduled_, SteadyClock::now()));
    if (num_tokens_ > 1) {
      one_.tpot_ms.push_back(MillisBetween(first_, last_) / static_cast<double>(num_tokens_ - 1));
    }
    if (!status.ok()) {
      std::fprintf(stderr, "polyad: request failed: %s\n", status.error_message().c_str());
    }
    collector_.Done(status.ok(), one_);
    delete this;
  }

 private:
  void NoteTokens(int count) {
    if (count == 0) return;
    const TimePoint now = SteadyClock::now();
    if (num_tokens_ == 0) {
      first_ = now;
      one_.ttft_ms.push_back(MillisBetween(scheduled_, now));
    } else {
      one_.itl_ms.push_back(MillisBetween(last_, now));
    }
    last_ = now;
    num_tokens_ += count;
  }

  grpc::ClientContext context_;
  v1::GenerateRequest request_;
  v1::GenerateResponse response_;
  const TimePoint scheduled_;
  TimePoint first_{};
  TimePoint last_{};
  int64_t num_tokens_ = 0;
  BenchResult one_;
  Collector& collector_;
};

std::vector<std::string> SplitNames(std::string_view text) {
  std::vector<std::string> names;
  while (!text.empty()) {
    const size_t end = std::min(text.find(','), text.size());
    if (end > 0) names.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return names;
}

StatusOr<BenchOptions> ParseOptions(const Arguments& args) {
  OwnFlags flags(args);
  BenchOptions out;
  out.target = flags.Take("target").value_or(out.target);
  out.api_key = flags.Take("api-key").value_or("");
  out.models = SplitNames(flags.Take("models").value_or(""));
  const std::string mix = flags.Take("mix").value_or("uniform");
  if (mix != "uniform" && mix != "zipf") return FieldError("mix", "uniform or zipf", mix);
  out.zipf = mix == "zipf";
  POLYAD_ASSIGN_OR_RETURN(out.rate, flags.TakeNumber("rate", 0, 0, 1e5));
  POLYAD_ASSIGN_OR_RETURN(out.num_requests, flags.TakeInt("requests", 100, 1, 1'000'000));
  POLYAD_ASSIGN_OR_RETURN(const double seconds, flags.TakeNumber("duration-s", 0, 0, 86400));
  POLYAD_ASSIGN_OR_RETURN(out.prompt_tokens, flags.TakeInt("prompt-tokens", 128, 1, 1 << 20));
  POLYAD_ASSIGN_OR_RETURN(out.output_tokens, flags.TakeInt("output-tokens", 64, 1, 1 << 20));
  POLYAD_ASSIGN_OR_RETURN(out.vocab_size, flags.TakeInt("vocab-size", 32000, 32, 1 << 21));
  POLYAD_ASSIGN_OR_RETURN(out.seed, flags.TakeInt("seed", 1, 0, INT64_MAX));
  if (!flags.rest().empty()) {
    return InvalidArgument("argument '%s': unknown (see --help)", flags.rest().front());
  }
  if (seconds > 0) {
    if (out.rate == 0) return InvalidArgument("duration-s: expected with --rate");
    out.num_requests = std::max<int64_t>(1, static_cast<int64_t>(seconds * out.rate));
  }
  return out;
}

// Model i of a zipf mix has weight 1 / (i + 1).
v1::GenerateRequest MakeRequest(const BenchOptions& options, std::mt19937_64& random) {
  v1::GenerateRequest request;
  std::uniform_int_distribution<int32_t> token(16, static_cast<int32_t>(options.vocab_size) - 1);
  for (int64_t i = 0; i < options.prompt_tokens; ++i) {
    request.mutable_token_ids()->add_ids(token(random));
  }
  if (!options.models.empty()) {
    std::vector<double> weights;
    for (size_t i = 0; i < options.models.size(); ++i) {
      weights.push_back(options.zipf ? 1.0 / static_cast<double>(i + 1) : 1.0);
    }
    std::discrete_distribution<size_t> pick(weights.begin(), weights.end());
    request.set_model(options.models[pick(random)]);
  }
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(options.output_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

BenchResult RunLoad(const BenchOptions& options) {
  const auto channel = grpc::CreateChannel(options.target, grpc::InsecureChannelCredentials());
  const auto stub = v1::InferenceService::NewStub(channel);
  std::mt19937_64 random(static_cast<uint64_t>(options.seed));
  std::exponential_distribution<double> gap(options.rate > 0 ? options.rate : 1.0);
  std::vector<v1::GenerateRequest> requests;
  requests.reserve(static_cast<size_t>(options.num_requests));
  for (int64_t i = 0; i < options.num_requests; ++i) {
    requests.push_back(MakeRequest(options, random));
  }
  Collector collector;
  const TimePoint begin = SteadyClock::now();
  TimePoint scheduled = begin;
  for (v1::GenerateRequest& request : requests) {
    if (options.rate > 0) {
      scheduled += std::chrono::duration_cast<SteadyClock::duration>(
          std::chrono::duration<double>(gap(random)));
      std::this_thread::sleep_until(scheduled);
    }
    new Call(*stub, std::move(request), options.api_key, scheduled, collector);
  }
  BenchResult result = collector.Wait(options.num_requests);
  result.duration_s = MillisBetween(begin, SteadyClock::now()) / 1e3;
  result.request_rate = options.rate;
  return result;
}

}  // namespace

int RunBench(const Arguments& args) {
  if (WantsHelp(args)) {
    std::printf(
        "usage: polyad bench [flags]\n\n"
        "Open-loop load on a server's data port; prints a JSON summary (vLLM's keys).\n"
        "  --target HOST:PORT   (default 127.0.0.1:50051)\n"
        "  --rate X             requests per second, Poisson; 0: all at once (default 0)\n"
        "  --requests N         (default 100), or --duration-s X with --rate\n"
        "  --prompt-tokens N    random ids, different in every request (default 128)\n"
        "  --output-tokens N    exactly, past any end of sequence (default 64)\n"
        "  --vocab-size N       ids are drawn below this (default 32000)\n"
        "  --models A,B,...     adapters to choose among (default: the base model)\n"
        "  --mix uniform|zipf   how (default uniform)\n"
        "  --api-key KEY\n"
        "  --seed N             (default 1)\n"
        "Exit codes: 0 every request succeeded, 1 some failed, 2 bad flag.\n");
    return kExitOk;
  }
  const auto options = ParseOptions(args);
  if (!options.ok()) return PrintError(options.status(), kExitUsage);
  BenchResult result = RunLoad(*options);
  const bool failed = result.failed > 0;
  std::fputs(BenchJson(std::move(result)).c_str(), stdout);
  return failed ? kExitFailed : kExitOk;
}

}  // namespace polyad
