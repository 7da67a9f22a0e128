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
    AdapterInfo info;
    info.report.name = name;
    info.report.family = "lora";
    snapshot.adapters.push_back(info);
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
