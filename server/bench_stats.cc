#include "server/bench_stats.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "server/json_text.h"

namespace polyad {
namespace {

void AppendMember(std::string_view key, double value, std::string& out) {
  out += out.back() == '{' ? "\n  " : ",\n  ";
  AppendJsonString(key, out);
  out += ": ";
  AppendJsonNumber(value, out);
}

void AppendSummary(const std::string& name, std::vector<double> values, std::string& out) {
  std::sort(values.begin(), values.end());
  const auto count = static_cast<double>(std::max<size_t>(values.size(), 1));
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (double value : values) squares += (value - mean) * (value - mean);
  const auto append = [&name, &out](const std::string& what, double value) {
    AppendMember(absl::StrCat(what, "_", name, "_ms"), value, out);
  };
  append("mean", mean);
  append("median", Percentile(values, 50));
  append("std", std::sqrt(squares / count));
  for (int percent : {90, 95, 99}) append(absl::StrCat("p", percent), Percentile(values, percent));
}

}  // namespace

double Percentile(const std::vector<double>& sorted, double percent) {
  if (sorted.empty()) return 0;
  const double position = static_cast<double>(sorted.size() - 1) * percent / 100;
  const auto low = static_cast<size_t>(position);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (position - static_cast<double>(low));
}

std::string BenchJson(BenchResult result) {
  const double seconds = std::max(result.duration_s, 1e-9);
  const auto in = static_cast<double>(result.input_tokens);
  const auto out_tokens = static_cast<double>(result.output_tokens);
  std::string out = "{";
  AppendMember("request_rate", result.request_rate, out);
  AppendMember("duration", result.duration_s, out);
  AppendMember("completed", static_cast<double>(result.completed), out);
  AppendMember("failed", static_cast<double>(result.failed), out);
  AppendMember("total_input_tokens", in, out);
  AppendMember("total_output_tokens", out_tokens, out);
  AppendMember("request_throughput", static_cast<double>(result.completed) / seconds, out);
  AppendMember("output_throughput", out_tokens / seconds, out);
  AppendMember("total_token_throughput", (in + out_tokens) / seconds, out);
  AppendSummary("ttft", std::move(result.ttft_ms), out);
  AppendSummary("tpot", std::move(result.tpot_ms), out);
  AppendSummary("itl", std::move(result.itl_ms), out);
  AppendSummary("e2el", std::move(result.e2el_ms), out);
  out += "\n}\n";
  return out;
}

}  // namespace polyad
