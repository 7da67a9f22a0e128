#include "server/bench_output.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace polyad {
namespace {

using Json = nlohmann::json;

BenchResult SomeResult() {
  BenchStats stats({.ttft_ms = 2});
  for (int ms : {3, 1, 2}) {
    BenchOutcome outcome;
    outcome.end = BenchOutcome::End::kCompleted;
    outcome.ttft_us = ms * 1000;
    outcome.gaps_us = {500};
    outcome.input_tokens = 5;
    outcome.output_tokens = 10;
    BenchRequest request;
    request.model = "lora \"x\"";
    request.tenant = "t" + std::to_string(ms);
    stats.Add(request, outcome);
  }
  BenchResult result = stats.Take();
  result.started_unix_us = 1'800'000'000'123'456;
  result.duration_s = 2;
  result.backend = "polyad-grpc";
  return result;
}

TEST(BenchJsonTest, HasTheKeysOfVllmsBenchmark) {
  const Json json = Json::parse(BenchJson(SomeResult()));
  for (const char* key : {"request_rate", "duration", "num_prompts", "completed", "failed",
                          "total_input_tokens", "total_output_tokens", "request_throughput",
                          "request_goodput", "output_throughput", "total_token_throughput"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  for (const char* name : {"ttft", "tpot", "itl", "e2el"}) {
    for (const char* what : {"mean", "median", "std", "p90", "p95", "p99"}) {
      EXPECT_TRUE(json.contains(std::string(what) + "_" + name + "_ms")) << what << name;
    }
  }
  EXPECT_EQ(json["completed"], 3);
  EXPECT_EQ(json["started_unix_us"].get<int64_t>(), 1'800'000'000'123'456);
  EXPECT_EQ(json["median_ttft_ms"], 2.0);
  EXPECT_EQ(json["median_itl_ms"], 0.5);
  EXPECT_EQ(json["output_throughput"], 15.0);
  EXPECT_EQ(json["request_goodput"], 1.0);
}

TEST(BenchJsonTest, TenantsAndModelsHaveTheSameKeys) {
  const Json json = Json::parse(BenchJson(SomeResult()));
  EXPECT_EQ(json["tenants"]["t3"]["slo_attainment"], 0.0);
  EXPECT_EQ(json["tenants"]["t1"]["median_ttft_ms"], 1.0);
  EXPECT_EQ(json["models"]["lora \"x\""]["completed"], 3);
  EXPECT_EQ(json["slo"], (Json{{"ttft_ms", 2}}));
}

TEST(BenchTableTest, HasARowForEach) {
  const std::string table = BenchTable(SomeResult());
  for (const char* part : {"\ntenant  t1 ", "\ntenant  t3 ", "\nmodel   lora", "\nall ", "66.7%"}) {
    EXPECT_NE(table.find(part), std::string::npos) << part << " in\n" << table;
  }
}

TEST(BenchLogTest, ALineIsJsonAndWhatNeverCameIsNull) {
  BenchOutcome outcome;
  outcome.end = BenchOutcome::End::kRefused;
  outcome.e2el_us = 1500;
  BenchRequest request;
  request.at_us = 250'000;
  const std::string line = BenchLogLine(request, outcome);
  EXPECT_EQ(line.back(), '\n');
  const Json json = Json::parse(line);
  EXPECT_EQ(json["at_s"], 0.25);
  EXPECT_EQ(json["end"], "refused");
  EXPECT_EQ(json["e2el_ms"], 1.5);
  EXPECT_TRUE(json["ttft_ms"].is_null());
  EXPECT_FALSE(json.contains("error"));
  outcome.error = "HTTP 503: \"draining\"";
  EXPECT_EQ(Json::parse(BenchLogLine(request, outcome))["error"], outcome.error);
}

}  // namespace
}  // namespace polyad
