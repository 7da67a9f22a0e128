#include "server/bench_trace.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/io/json.h"

namespace polyad {
namespace {

constexpr JsonLimits kLineLimits{
    .max_bytes = 4096, .max_depth = 2, .max_values = 64, .max_members = 32};
constexpr int64_t kMaxTokens = int64_t{1} << 20;
constexpr double kMaxSeconds = 1e6;
constexpr int64_t kFirstPlainId = 16;  // lower ones are often special

StatusOr<BenchRequest> ParseLine(std::string_view line, const std::string& where) {
  POLYAD_ASSIGN_OR_RETURN(const Json json, ParseJson(line, where, kLineLimits));
  POLYAD_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, where));
  BenchRequest one;
  POLYAD_ASSIGN_OR_RETURN(const double at_s, fields.Number("at_s", 0, kMaxSeconds));
  one.at_us = static_cast<int64_t>(at_s * 1e6);
  POLYAD_ASSIGN_OR_RETURN(one.model, fields.StringOr("model", ""));
  POLYAD_ASSIGN_OR_RETURN(one.tenant, fields.StringOr("tenant", ""));
  POLYAD_ASSIGN_OR_RETURN(one.prompt_tokens, fields.Int("prompt_tokens", 1, kMaxTokens));
  POLYAD_ASSIGN_OR_RETURN(one.output_tokens, fields.Int("output_tokens", 1, kMaxTokens));
  POLYAD_ASSIGN_OR_RETURN(one.prefix, fields.IntOr("prefix", 0, 0, INT32_MAX));
  POLYAD_ASSIGN_OR_RETURN(one.prefix_tokens,
                          fields.IntOr("prefix_tokens", 0, 0, one.prompt_tokens));
  POLYAD_ASSIGN_OR_RETURN(one.read_pause_ms, fields.IntOr("read_pause_ms", 0, 0, 60'000));
  POLYAD_ASSIGN_OR_RETURN(one.cancel_after_tokens,
                          fields.IntOr("cancel_after_tokens", 0, 0, kMaxTokens));
  return one;
}

void AppendIds(int64_t count, int64_t vocab_size, std::mt19937_64& random,
               std::vector<int32_t>& out) {
  std::uniform_int_distribution<int32_t> id(static_cast<int32_t>(kFirstPlainId),
                                            static_cast<int32_t>(vocab_size) - 1);
  for (int64_t i = 0; i < count; ++i) out.push_back(id(random));
}

}  // namespace

StatusOr<std::vector<BenchRequest>> ParseBenchTrace(std::string_view text,
                                                    const std::string& where) {
  std::vector<BenchRequest> requests;
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string here = absl::StrCat(where, ":", number);
    if (static_cast<int64_t>(requests.size()) == kMaxBenchRequests) {
      return InvalidArgument("%s: expected at most %d requests", here, kMaxBenchRequests);
    }
    POLYAD_ASSIGN_OR_RETURN(BenchRequest one, ParseLine(line, here));
    if (!requests.empty() && one.at_us < requests.back().at_us) {
      return InvalidArgument("%s: key 'at_s': expected at least the line's before", here);
    }
    requests.push_back(std::move(one));
  }
  if (requests.empty()) return InvalidArgument("%s: expected at least one request", where);
  return requests;
}

std::vector<BenchRequest> MakeBenchTrace(const BenchMix& mix) {
  std::mt19937_64 random(mix.seed);
  std::exponential_distribution<double> gap(mix.rate > 0 ? mix.rate : 1.0);
  std::vector<double> weights;
  for (size_t i = 0; i < mix.models.size(); ++i) {
    weights.push_back(mix.zipf ? 1.0 / static_cast<double>(i + 1) : 1.0);
  }
  std::discrete_distribution<size_t> pick(weights.begin(), weights.end());
  std::vector<BenchRequest> requests(static_cast<size_t>(mix.num_requests));
  double at_s = 0;
  for (BenchRequest& one : requests) {
    if (mix.rate > 0) at_s += gap(random);
    one.at_us = static_cast<int64_t>(at_s * 1e6);
    if (!mix.models.empty()) one.model = mix.models[pick(random)];
    one.prompt_tokens = mix.prompt_tokens;
    one.output_tokens = mix.output_tokens;
  }
  return requests;
}

std::vector<int32_t> BenchPrompt(const BenchRequest& request, int64_t vocab_size,
                                 std::mt19937_64& random) {
  std::vector<int32_t> ids;
  ids.reserve(static_cast<size_t>(request.prompt_tokens));
  if (request.prefix_tokens > 0) {
    std::mt19937_64 of_prefix(static_cast<uint64_t>(request.prefix));
    AppendIds(request.prefix_tokens, vocab_size, of_prefix, ids);
  }
  AppendIds(request.prompt_tokens - request.prefix_tokens, vocab_size, random, ids);
  return ids;
}

}  // namespace polyad
