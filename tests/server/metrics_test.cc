#include "server/metrics.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>

#include "server/metric_families.h"

namespace polyad {
namespace {

MetricsSnapshot Snapshot() {
  MetricsSnapshot snapshot;
  snapshot.load.num_waiting = 2;
  snapshot.load.num_running = 3;
  snapshot.load.num_kv_blocks = 100;
  snapshot.load.num_kv_blocks_used = 25;
  snapshot.load.waiting_adapters = {"c"};
  for (const char* name : {"a", "b"}) {
    snapshot.adapters.push_back({.name = name, .family = "lora"});
  }
  snapshot.adapter_bytes = {Precision::k1Bit, 24};
  snapshot.adapter_bytes += FloatBytes(2);
  snapshot.weight_bytes.embeddings = {Precision::kBF16, 100};
  snapshot.weight_bytes.layers = {Precision::k4Bit, 50};
  snapshot.kv_format = "int8";
  snapshot.kv_bytes_per_token = 12240;
  snapshot.max_adapters = 8;
  snapshot.now_unix_seconds = 1700000000;
  return snapshot;
}

EngineObserver::RequestDone Done(const std::string& adapter) {
  EngineObserver::RequestDone done;
  done.adapter = adapter;
  done.usage = {10, 0, 5};
  done.time_to_first_token_ms = 12;
  done.end_to_end_ms = 100;
  return done;
}

bool HasLine(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST(MetricsTest, MemoryThatIsSharedIsToldByKind) {
  MetricsSnapshot snapshot = Snapshot();
  EXPECT_EQ(Metrics().Render(snapshot).find("polyad_memory_bytes"), std::string::npos);
  snapshot.load.memory_bytes = {100, 40, 30, 20, 10};
  const std::string text = Metrics().Render(snapshot);
  EXPECT_TRUE(HasLine(text, "polyad_memory_bytes{kind=\"kv\"} 40")) << text;
  EXPECT_TRUE(HasLine(text, "polyad_memory_bytes{kind=\"prefix\"} 30"));
  EXPECT_TRUE(HasLine(text, "polyad_memory_bytes{kind=\"adapters\"} 20"));
  EXPECT_TRUE(HasLine(text, "polyad_memory_bytes{kind=\"free\"} 10"));
}

TEST(MetricsTest, RoutersFindTheNamesTheyKnow) {
  const std::string text = Metrics().Render(Snapshot());
  EXPECT_TRUE(HasLine(text, "vllm:num_requests_waiting 2")) << text;
  EXPECT_TRUE(HasLine(text, "vllm:num_requests_running 3"));
  EXPECT_TRUE(HasLine(text, "vllm:kv_cache_usage_perc 0.25"));
  EXPECT_TRUE(HasLine(text,
                      "vllm:cache_config_info{block_size=\"16\",bytes_per_token=\"12240\","
                      "cache_dtype=\"int8\",num_gpu_blocks=\"100\"} 1"));
  EXPECT_TRUE(HasLine(text,
                      "vllm:lora_requests_info{max_lora=\"8\",running_lora_adapters=\"a,b\","
                      "waiting_lora_adapters=\"c\"} 1700000000"));
}

// vLLM's names for what is counted under ours: the same samples, by its labels.
TEST(MetricsTest, WhatVllmCountsIsThereUnderItsNames) {
  Metrics metrics;
  EngineObserver::RequestDone done = Done("a");
  metrics.OnRequestDone(done);
  done.reason = FinishReason::kCancelled;
  metrics.OnRequestDone(done);
  metrics.OnTokenGap(30);
  metrics.OnStep(10, 3, 5.0);
  MetricsSnapshot snapshot = Snapshot();
  snapshot.load.prompt_tokens = 20;
  snapshot.load.generated_tokens = 10;
  snapshot.load.num_preemptions = 4;
  snapshot.load.prefix_queries = 9;
  snapshot.load.prefix_hits = 6;
  const std::string text = metrics.Render(snapshot);
  for (const char* line :
       {"vllm:prompt_tokens_total 20", "vllm:generation_tokens_total 10",
        "vllm:num_preemptions_total 4", "vllm:prefix_cache_queries_total 9",
        "vllm:prefix_cache_hits_total 6", R"(vllm:request_success_total{finished_reason="stop"} 1)",
        R"(vllm:request_success_total{finished_reason="abort"} 1)",
        R"(vllm:request_success_total{finished_reason="length"} 0)",
        R"(vllm:time_to_first_token_seconds_bucket{le="0.02"} 2)",
        R"(vllm:time_to_first_token_seconds_bucket{le="0.01"} 0)",
        "vllm:e2e_request_latency_seconds_sum 0.2", "vllm:request_queue_time_seconds_count 2",
        R"(vllm:inter_token_latency_seconds_bucket{le="0.04"} 1)",
        "vllm:time_per_output_token_seconds_sum 0.03", "vllm:iteration_tokens_total_sum 10"}) {
    EXPECT_TRUE(HasLine(text, line)) << line << " in\n" << text;
  }
}

TEST(MetricsTest, WeightBytesAreToldByPartAndPrecision) {
  const std::string text = Metrics().Render(Snapshot());
  EXPECT_TRUE(HasLine(text, "polyad_adapter_bytes 32")) << text;
  for (const char* line : {R"(polyad_weight_bytes{part="base_embeddings",precision="bf16"} 100)",
                           R"(polyad_weight_bytes{part="base_layers",precision="4-bit"} 50)",
                           R"(polyad_weight_bytes{part="adapters",precision="1-bit"} 24)",
                           R"(polyad_weight_bytes{part="adapters",precision="f32"} 8)",
                           R"(polyad_weight_bytes{part="adapters",precision="index"} 0)"}) {
    EXPECT_TRUE(HasLine(text, line)) << line << " in\n" << text;
  }
}

TEST(MetricsTest, CountersAreThereBeforeTheirFirstEvent) {
  const std::string text = Metrics().Render(Snapshot());
  for (const char* line : {R"(polyad_requests_finished_total{reason="error"} 0)",
                           R"(polyad_requests_rejected_total{reason="RESOURCE_EXHAUSTED"} 0)",
                           R"(polyad_quota_refusals_total{quota="max_queued"} 0)",
                           R"(polyad_tls_reloads_total{result="refused"} 0)"}) {
    EXPECT_TRUE(HasLine(text, line)) << line << " in\n" << text;
  }
}

TEST(MetricsTest, LoraInfoIsOneSeriesHoweverOftenItChanges) {
  Metrics metrics;
  MetricsSnapshot snapshot = Snapshot();
  metrics.Render(snapshot);
  snapshot.load.waiting_adapters = {"d"};
  const std::string text = metrics.Render(snapshot);
  const size_t first = text.find("vllm:lora_requests_info{");
  EXPECT_EQ(text.find("vllm:lora_requests_info{", first + 1), std::string::npos);
}

TEST(MetricsTest, EveryLineIsACommentOrASample) {
  Metrics metrics;
  metrics.OnRequestDone(Done("a"));
  metrics.OnStep(10, 3, 5.0);
  metrics.OnTokenGap(2.0);
  metrics.OnRejected(absl::StatusCode::kResourceExhausted);
  metrics.OnAdapterLoad(true, 0.1);
  metrics.OnAdapterLoad(false, 0.1);
  std::istringstream lines(metrics.Render(Snapshot()));
  std::set<std::string> families;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# TYPE ")) {
      EXPECT_TRUE(families.insert(line).second) << line;
    } else if (!line.starts_with("# HELP ")) {
      const size_t space = line.rfind(' ');
      ASSERT_NE(space, std::string::npos) << line;
      EXPECT_NO_THROW((void)std::stod(line.substr(space + 1))) << line;
    }
  }
  EXPECT_GT(families.size(), 25u);
}

TEST(MetricsTest, HistogramsCountWhatHappened) {
  Metrics metrics;
  metrics.OnRequestDone(Done("a"));
  metrics.OnRequestDone(Done("a"));
  metrics.OnTokenGap(3);
  metrics.OnRejected(absl::StatusCode::kResourceExhausted);
  const std::string text = metrics.Render(Snapshot());
  EXPECT_TRUE(HasLine(text, "polyad_time_to_first_token_seconds_count 2"));
  EXPECT_TRUE(HasLine(text, "polyad_inter_token_latency_seconds_count 1"));
  EXPECT_TRUE(HasLine(text, R"(polyad_requests_finished_total{reason="stop"} 2)"));
  EXPECT_TRUE(HasLine(text, R"(polyad_requests_rejected_total{reason="RESOURCE_EXHAUSTED"} 1)"));
  EXPECT_TRUE(HasLine(text, R"(polyad_adapter_generated_tokens_total{adapter="a"} 10)"));
}

TEST(MetricsTest, SeriesStayBoundedHoweverManyAdapters) {
  Metrics metrics;
  for (int i = 0; i < 10'000; ++i) metrics.OnRequestDone(Done("adapter-" + std::to_string(i)));
  const std::string text = metrics.Render(Snapshot());
  EXPECT_LT(text.size(), size_t{100} << 10);
  for (int i = 0; i < 1000; ++i) metrics.OnRejected(absl::StatusCode::kNotFound);
  EXPECT_TRUE(HasLine(metrics.Render(Snapshot()),
                      R"(polyad_adapter_requests_total{adapter="unknown"} 1000)"));
}

std::set<std::string> SeriesOf(const std::string& text) {
  std::set<std::string> series;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("#")) continue;
    EXPECT_TRUE(series.insert(line.substr(0, line.rfind(' '))).second) << line;
  }
  return series;
}

EndedRequest Ended(const std::string& tenant) {
  EndedRequest ended;
  ended.tenant = tenant;
  ended.usage = {10, 0, 5};
  ended.timings.queue_ms = 250;
  return ended;
}

TEST(MetricsTest, TenantsAreToldApart) {
  Metrics metrics;
  metrics.OnRequestEnded(Ended("acme"));
  metrics.OnRequestEnded(Ended("acme"));
  metrics.OnRequestEnded(Ended(""));
  metrics.OnRefused("initech", absl::StatusCode::kUnavailable, "");
  MetricsSnapshot snapshot = Snapshot();
  snapshot.tenants = {{"acme", 3, 2}, {"newcomer", 4, 4}};
  const std::string text = metrics.Render(snapshot);
  for (const char* line :
       {R"(polyad_tenant_requests_total{tenant="acme"} 2)",
        R"(polyad_tenant_requests_total{tenant="-"} 1)",
        R"(polyad_tenant_requests_total{tenant="initech"} 0)",
        R"(polyad_tenant_refused_total{tenant="initech"} 1)",
        R"(polyad_tenant_prompt_tokens_total{tenant="acme"} 20)",
        R"(polyad_tenant_generated_tokens_total{tenant="acme"} 10)",
        R"(polyad_tenant_queue_seconds_total{tenant="acme"} 0.5)",
        R"(polyad_tenant_requests{tenant="acme"} 3)", R"(polyad_tenant_queued{tenant="acme"} 2)",
        R"(polyad_tenant_requests{tenant="initech"} 0)",
        R"(polyad_tenant_queued{tenant="other"} 4)"}) {
    EXPECT_TRUE(HasLine(text, line)) << line << " in\n" << text;
  }
}

TEST(MetricsTest, WhatIsSwappedOutIsNotRunning) {
  Metrics metrics;
  metrics.OnRequestDone(Done("a"));
  metrics.OnRequestDone(Done("b"));
  MetricsSnapshot snapshot = Snapshot();
  snapshot.adapters.front().resident = false;
  const std::string text = metrics.Render(snapshot);
  EXPECT_NE(text.find("running_lora_adapters=\"b\""), std::string::npos) << text;
  EXPECT_TRUE(HasLine(text, R"(polyad_adapter_resident{adapter="a"} 0)"));
  EXPECT_TRUE(HasLine(text, R"(polyad_adapter_resident{adapter="b"} 1)"));
}

TEST(MetricsTest, TheRegistryAndTheProcessAreTold) {
  MetricsSnapshot snapshot = Snapshot();
  snapshot.registry = {true, 2, 1};
  snapshot.process = {4096, 1.5, 1.7e9};
  snapshot.version = "1.2";
  const std::string text = Metrics().Render(snapshot);
  for (const char* line :
       {"polyad_registry_durable 1", "polyad_registry_write_failures_total 2",
        "polyad_registry_restore_failures_total 1", "process_resident_memory_bytes 4096",
        "process_cpu_seconds_total 1.5", "process_start_time_seconds 1700000000",
        R"(polyad_build_info{version="1.2"} 1)"}) {
    EXPECT_TRUE(HasLine(text, line)) << line << " in\n" << text;
  }
}

// Thousands of everything that a client or an operator can name.
TEST(MetricsTest, NoNumberOfNamesMakesMoreSeries) {
  constexpr size_t kMostSeries = 850;
  Metrics metrics;
  MetricsSnapshot snapshot = Snapshot();
  std::set<std::string> first;
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 5000; ++i) {
      const std::string name = "name-" + std::to_string(round * 5000 + i);
      metrics.OnRequestDone(Done(name));
      metrics.OnRequestEnded(Ended(name));
      metrics.OnRejected(absl::StatusCode::kNotFound);
      metrics.OnRefused(name, absl::StatusCode::kResourceExhausted, "max_queued");
      snapshot.adapters.push_back({.name = name, .family = "lora"});
      snapshot.tenants.push_back({name, 1, 1});
    }
    const std::set<std::string> series = SeriesOf(metrics.Render(snapshot));
    EXPECT_LT(series.size(), kMostSeries);
    if (round == 0) first = series;
    EXPECT_EQ(series.size(), first.size());
  }
}

TEST(MetricsTest, AnAdapterCalledOtherMakesNoSecondSeriesOfThatName) {
  Metrics metrics;
  for (const char* name : {"other", "unknown", "a"}) {
    metrics.OnRequestDone(Done(name));
    metrics.OnRequestEnded(Ended(name));
  }
  const std::string text = metrics.Render(Snapshot());
  SeriesOf(text);
  EXPECT_TRUE(HasLine(text, R"(polyad_adapter_requests_total{adapter="other"} 2)")) << text;
  EXPECT_TRUE(HasLine(text, R"(polyad_tenant_requests_total{tenant="other"} 2)"));
}

TEST(AdapterTrafficTest, TheBusiestGetTheSeriesAndNoSumEverFalls) {
  AdapterTraffic traffic(2, 100);
  const auto value_of = [&](const std::string& adapter) {
    std::vector<prometheus::MetricFamily> families;
    traffic.AppendFamilies(families);
    for (const auto& metric : families.front().metric) {
      if (metric.label.front().value == adapter) return metric.counter.value;
    }
    return -1.0;
  };
  for (int i = 0; i < 3; ++i) traffic.Add("busy", {1, 0, 1});
  traffic.Add("quiet", {1, 0, 1});
  for (int i = 0; i < 2; ++i) traffic.Add("middle", {1, 0, 1});
  EXPECT_EQ(value_of("busy"), 3);
  EXPECT_EQ(value_of("middle"), 2);
  EXPECT_EQ(value_of("quiet"), -1);
  EXPECT_EQ(value_of("other"), 1);
  traffic.Add("busy", {1, 0, 1});
  traffic.Add("quiet", {1, 0, 1});
  EXPECT_EQ(value_of("busy"), 4);
  EXPECT_EQ(value_of("other"), 2);
}

TEST(AdapterTrafficTest, ALateSeriesStartsAtZeroSoThatOtherNeverFalls) {
  AdapterTraffic traffic(2, 100);
  const auto requests = [&] {
    std::vector<prometheus::MetricFamily> families;
    traffic.AppendFamilies(families);
    std::map<std::string, double> values;
    for (const auto& metric : families.front().metric) {
      values[metric.label.front().value] = metric.counter.value;
    }
    return values;
  };
  traffic.Add("a", {1, 0, 1});
  EXPECT_EQ(requests()["a"], 1);
  traffic.Add("b", {1, 0, 1});
  auto values = requests();
  EXPECT_EQ(values["b"], 0);
  EXPECT_EQ(values["other"], 1);
  traffic.Add("b", {1, 0, 1});
  values = requests();
  EXPECT_EQ(values["b"], 1);
  EXPECT_EQ(values["other"], 1);
}

}  // namespace
}  // namespace polyad
