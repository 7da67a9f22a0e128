#include "server/bench_output.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/json_text.h"

namespace polyad {
namespace {

// Writes one object, members indented by two spaces per level.
class Members {
 public:
  Members(int level, std::string& out) : level_(level), out_(out) { out_ += '{'; }
  void Number(std::string_view key, double value) {
    Key(key);
    AppendJsonNumber(value, out_);
  }
  void Integer(std::string_view key, int64_t value) {
    Key(key);
    absl::StrAppend(&out_, value);
  }
  void Text(std::string_view key, std::string_view value) {
    Key(key);
    AppendJsonString(value, out_);
  }
  void Key(std::string_view key) {
    out_ += first_ ? "\n" : ",\n";
    first_ = false;
    out_.append(static_cast<size_t>(2 * level_), ' ');
    AppendJsonString(key, out_);
    out_ += ": ";
  }
  void Close() {
    out_ += '\n';
    out_.append(static_cast<size_t>(2 * (level_ - 1)), ' ');
    out_ += '}';
  }

 private:
  int level_;
  std::string& out_;
  bool first_ = true;
};

void AppendSummary(const std::string& name, const LatencyHistogram& times, Members& out) {
  const auto append = [&](const std::string& what, double value) {
    out.Number(absl::StrCat(what, "_", name, "_ms"), value);
  };
  append("mean", times.MeanMs());
  append("median", times.PercentileMs(50));
  append("std", times.DeviationMs());
  for (int percent : {90, 95, 99}) append(absl::StrCat("p", percent), times.PercentileMs(percent));
}

void AppendGroup(const BenchGroup& group, double duration_s, Members& out) {
  const double seconds = std::max(duration_s, 1e-9);
  const auto in = static_cast<double>(group.input_tokens);
  const auto written = static_cast<double>(group.output_tokens);
  const int64_t all = group.completed + group.refused + group.failed + group.cancelled;
  out.Number("num_prompts", static_cast<double>(all));
  out.Number("completed", static_cast<double>(group.completed));
  out.Number("failed", static_cast<double>(group.failed + group.refused));
  out.Number("refused", static_cast<double>(group.refused));
  out.Number("cancelled", static_cast<double>(group.cancelled));
  out.Number("total_input_tokens", in);
  out.Number("total_output_tokens", written);
  out.Number("request_throughput", static_cast<double>(group.completed) / seconds);
  out.Number("request_goodput", static_cast<double>(group.good) / seconds);
  out.Number("output_goodput", static_cast<double>(group.good_tokens) / seconds);
  out.Number("slo_attainment", group.Attainment());
  out.Number("output_throughput", written / seconds);
  out.Number("total_token_throughput", (in + written) / seconds);
  AppendSummary("ttft", group.ttft, out);
  AppendSummary("tpot", group.tpot, out);
  AppendSummary("itl", group.itl, out);
  AppendSummary("e2el", group.e2el, out);
}

void AppendGroups(const std::map<std::string, BenchGroup>& groups, double duration_s,
                  std::string& out) {
  Members members(2, out);
  for (const auto& [name, group] : groups) {
    members.Key(name);
    Members inner(3, out);
    AppendGroup(group, duration_s, inner);
    inner.Close();
  }
  members.Close();
}

void AppendTargets(const BenchTargets& targets, std::string& out) {
  Members members(2, out);
  if (targets.ttft_ms > 0) members.Number("ttft_ms", targets.ttft_ms);
  if (targets.tpot_ms > 0) members.Number("tpot_ms", targets.tpot_ms);
  if (targets.e2el_ms > 0) members.Number("e2el_ms", targets.e2el_ms);
  members.Close();
}

void AppendRow(std::string_view kind, const std::string& name, const BenchGroup& group,
               const BenchResult& result, std::string& out) {
  const double seconds = std::max(result.duration_s, 1e-9);
  absl::StrAppendFormat(
      &out, "%-7s %-24s %7d %7d %6d %9.1f %8.2f %6.1f%% %8.1f %8.1f %7.1f %7.1f %9.1f %9.1f\n",
      kind, name, group.completed, group.refused + group.failed, group.cancelled,
      static_cast<double>(group.output_tokens) / seconds, static_cast<double>(group.good) / seconds,
      100 * group.Attainment(), group.ttft.PercentileMs(50), group.ttft.PercentileMs(99),
      group.itl.PercentileMs(50), group.itl.PercentileMs(99), group.e2el.PercentileMs(50),
      group.e2el.PercentileMs(99));
}

std::string_view NameOf(BenchOutcome::End end) {
  switch (end) {
    case BenchOutcome::End::kCompleted:
      return "completed";
    case BenchOutcome::End::kRefused:
      return "refused";
    case BenchOutcome::End::kFailed:
      return "failed";
    case BenchOutcome::End::kCancelled:
      return "cancelled";
  }
  return "";
}

void AppendMillis(std::string_view key, int64_t us, std::string& out) {
  absl::StrAppend(&out, ",\"", std::string(key), "\":");
  if (us < 0) {
    out += "null";
  } else {
    AppendJsonNumber(static_cast<double>(us) / 1e3, out);
  }
}

}  // namespace

std::string BenchJson(const BenchResult& result) {
  std::string out;
  Members members(1, out);
  members.Text("backend", result.backend);
  members.Number("request_rate", result.request_rate);
  members.Integer("started_unix_us", result.started_unix_us);
  members.Number("duration", result.duration_s);
  AppendGroup(result.total, result.duration_s, members);
  AppendSummary("client_lateness", result.lateness, members);
  members.Number("client_cores", result.client_cores);
  members.Text("first_error", result.first_error);
  members.Key("slo");
  AppendTargets(result.targets, out);
  members.Key("tenants");
  AppendGroups(result.by_tenant, result.duration_s, out);
  members.Key("models");
  AppendGroups(result.by_model, result.duration_s, out);
  members.Close();
  out += '\n';
  return out;
}

std::string BenchTable(const BenchResult& result) {
  std::string out =
      absl::StrFormat("%-7s %-24s %7s %7s %6s %9s %8s %7s %8s %8s %7s %7s %9s %9s\n", "",
                      "times in ms", "done", "failed", "cut", "tokens/s", "good/s", "slo",
                      "ttft p50", "ttft p99", "itl p50", "itl p99", "e2e p50", "e2e p99");
  AppendRow("all", "", result.total, result, out);
  for (const auto& [name, group] : result.by_tenant) AppendRow("tenant", name, group, result, out);
  for (const auto& [name, group] : result.by_model) AppendRow("model", name, group, result, out);
  absl::StrAppendFormat(&out, "%.1f s, client late by p99 %.2f ms, on %.2f cores\n",
                        result.duration_s, result.lateness.PercentileMs(99), result.client_cores);
  return out;
}

std::string BenchLogLine(const BenchRequest& request, const BenchOutcome& outcome) {
  std::string out = "{\"at_s\":";
  AppendJsonNumber(static_cast<double>(request.at_us) / 1e6, out);
  out += ",\"tenant\":";
  AppendJsonString(request.tenant, out);
  out += ",\"model\":";
  AppendJsonString(request.model, out);
  absl::StrAppend(&out, ",\"end\":\"", std::string(NameOf(outcome.end)),
                  "\",\"input_tokens\":", outcome.input_tokens,
                  ",\"output_tokens\":", outcome.output_tokens);
  AppendMillis("sent_ms", outcome.sent_us, out);
  AppendMillis("ttft_ms", outcome.ttft_us, out);
  AppendMillis("tpot_ms", outcome.tpot_us, out);
  AppendMillis("e2el_ms", outcome.e2el_us, out);
  if (!outcome.error.empty()) {
    out += ",\"error\":";
    AppendJsonString(outcome.error, out);
  }
  out += "}\n";
  return out;
}

}  // namespace polyad
