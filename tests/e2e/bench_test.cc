// `polyad bench` against a real server. covers: server/bench_grpc.cc server/bench_http.cc

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/e2e/server_process.h"
#include "tests/engine/io/file_builders.h"

namespace polyad {
namespace {

const std::string kModel = std::string(POLYAD_SOURCE_DIR) + "/tests/golden/models/llama";

// Both fronts, with slow readers and cancels, and what the files beside say.
TEST(BenchTest, ReplaysATraceOverBothFronts) {
  const ServerProcess server({"--model=" + kModel});
  const TemporaryDirectory directory;
  const std::string trace = directory.path() + "/trace.jsonl";
  {
    std::ofstream out(trace);
    for (int i = 0; i < 30; ++i) {
      out << "{\"at_s\":" << i * 0.01 << ",\"tenant\":\"t" << i % 2
          << "\",\"prompt_tokens\":12,\"output_tokens\":20,\"prefix\":1,\"prefix_tokens\":8"
          << (i == 3 ? ",\"cancel_after_tokens\":1" : "") << (i == 4 ? ",\"read_pause_ms\":20" : "")
          << "}\n";
    }
  }
  for (const std::string& target : {server.Address("grpc"), "http://" + server.Address("http")}) {
    const std::string log = directory.path() + "/log.jsonl";
    const std::string json = directory.path() + "/result.json";
    const Output out =
        RunProgram("bench --vocab-size 320 --speed 2 --slo-ttft-ms 60000 --format table --target " +
                   target + " --trace " + trace + " --log " + log + " --json " + json);
    ASSERT_EQ(out.exit_code, 0) << out.text;
    EXPECT_NE(out.text.find("tenant  t1"), std::string::npos) << out.text;
    std::ifstream in(json);
    const auto result = nlohmann::json::parse(in);
    EXPECT_EQ(result["completed"], 29);
    EXPECT_GT(result["started_unix_us"].get<int64_t>(), int64_t{1'700'000'000'000'000});
    EXPECT_EQ(result["cancelled"], 1);
    EXPECT_EQ(result["slo_attainment"], 1.0);
    EXPECT_EQ(result["total_output_tokens"], 29 * 20);
    EXPECT_EQ(result["total_input_tokens"], 29 * 12);
    EXPECT_EQ(result["tenants"]["t0"]["completed"], 15);
    EXPECT_EQ(result["tenants"]["t1"]["completed"], 14);
    std::ifstream lines(log);
    int num_lines = 0;
    for (std::string line; std::getline(lines, line); ++num_lines) {
      EXPECT_TRUE(nlohmann::json::parse(line).contains("ttft_ms"));
    }
    EXPECT_EQ(num_lines, 30);
  }
  EXPECT_EQ(RunProgram("bench --trace " + directory.path() + "/none").exit_code, 2);
  EXPECT_EQ(RunProgram("bench --target http://nowhere").exit_code, 2);
  EXPECT_EQ(RunProgram("bench --llama-loras a").exit_code, 2);
}

}  // namespace
}  // namespace polyad
