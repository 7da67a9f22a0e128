#include <algorithm>
#include <cmath>
#include <utility>

#include "server/adapter_visibility.h"
#include "server/http_api.h"
#include "server/json_text.h"
#include "server/playground.h"

namespace polyad {
namespace {

constexpr double kKvSteps = 20;  // the share of K/V is told in twentieths

}  // namespace

void HttpApi::Page(const Exchange& exchange, const std::string&) {
  exchange->Respond(200, "text/html; charset=utf-8", PlaygroundPage(),
                    {{"Content-Security-Policy", PlaygroundPolicy()},
                     {"X-Content-Type-Options", "nosniff"},
                     {"Referrer-Policy", "no-referrer"},
                     {"Cache-Control", "no-cache"}});
}

// A tenant's own requests and what it may use. Of what all share only how full K/V is, and that in
// coarse steps: others' requests cannot be counted by it.
void HttpApi::StatusRoute(const Exchange& exchange, const std::string& tenant) {
  const EngineLoad load = serving_.engine.load();
  int64_t num_requests = 0;
  int64_t num_queued = 0;
  for (const TenantGate::TenantCounts& counts : serving_.gate.tenant_counts()) {
    if (counts.tenant != tenant) continue;
    num_requests = counts.num_requests;
    num_queued = counts.num_queued;
  }
  const double used = static_cast<double>(load.num_kv_blocks_used) /
                      static_cast<double>(std::max<int64_t>(load.num_kv_blocks, 1));
  std::string body = R"({"object":"status","model":)";
  AppendJsonString(serving_.limits.model_name, body);
  body += R"(,"draining":)";
  body += serving_.draining.load() ? "true" : "false";
  body += R"(,"requests":{"running":)";
  AppendJsonInt(num_requests - num_queued, body);
  body += R"(,"waiting":)";
  AppendJsonInt(num_queued, body);
  body += R"(},"kv_usage":)";
  AppendJsonNumber(std::ceil(used * kKvSteps) / kKvSteps, body);
  body += R"(,"adapters":[)";
  bool first = true;
  for (const AdapterInfo& adapter : VisibleAdapters(serving_.registry, tenant)) {
    if (!std::exchange(first, false)) body += ',';
    body += R"({"id":)";
    AppendJsonString(adapter.report.name, body);
    body += R"(,"resident":)";
    body += adapter.resident ? "true" : "false";
    body += '}';
  }
  body += "]}";
  exchange->Respond(200, "application/json", body);
}

}  // namespace polyad
