#include "server/bench_trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace polyad {
namespace {

TEST(BenchTraceTest, ReadsEveryFieldOfALine) {
  const auto trace = ParseBenchTrace(
      "{\"at_s\":0.5,\"model\":\"lora-01\",\"tenant\":\"t\",\"prompt_tokens\":9,"
      "\"output_tokens\":4,\"prefix\":3,\"prefix_tokens\":8,\"read_pause_ms\":200,"
      "\"cancel_after_tokens\":2}\n\n{\"at_s\":0.5,\"prompt_tokens\":1,\"output_tokens\":1}",
      "t.jsonl");
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->size(), 2);
  const BenchRequest& one = trace->front();
  EXPECT_EQ(one.at_us, 500'000);
  EXPECT_EQ(one.model, "lora-01");
  EXPECT_EQ(one.tenant, "t");
  EXPECT_EQ(one.prompt_tokens, 9);
  EXPECT_EQ(one.output_tokens, 4);
  EXPECT_EQ(one.prefix, 3);
  EXPECT_EQ(one.prefix_tokens, 8);
  EXPECT_EQ(one.read_pause_ms, 200);
  EXPECT_EQ(one.cancel_after_tokens, 2);
  EXPECT_EQ(trace->back().model, "");
  EXPECT_EQ(trace->back().cancel_after_tokens, 0);
}

TEST(BenchTraceTest, RefusalsNameTheLine) {
  const std::string good = "{\"at_s\":1,\"prompt_tokens\":1,\"output_tokens\":1}\n";
  for (const char* bad :
       {"{\"at_s\":0.9,\"prompt_tokens\":1,\"output_tokens\":1}",
        "{\"at_s\":2,\"prompt_tokens\":0,\"output_tokens\":1}",
        "{\"at_s\":2,\"prompt_tokens\":1,\"output_tokens\":2000000}",
        "{\"at_s\":2,\"prompt_tokens\":1,\"output_tokens\":1,\"prefix_tokens\":2}",
        "{\"prompt_tokens\":1,\"output_tokens\":1}", "[]", "{", "null"}) {
    const auto trace = ParseBenchTrace(good + bad, "t.jsonl");
    ASSERT_FALSE(trace.ok()) << bad;
    EXPECT_NE(trace.status().message().find("t.jsonl:2"), std::string::npos) << trace.status();
  }
  EXPECT_FALSE(ParseBenchTrace("\n \n", "t.jsonl").ok());
}

TEST(BenchTraceTest, PrefixesAreSharedAndTheRestIsNot) {
  BenchRequest one;
  one.prompt_tokens = 40;
  one.prefix = 7;
  one.prefix_tokens = 30;
  std::mt19937_64 random(1);
  const auto first = BenchPrompt(one, 500, random);
  const auto second = BenchPrompt(one, 500, random);
  one.prefix = 8;
  const auto other = BenchPrompt(one, 500, random);
  ASSERT_EQ(first.size(), 40);
  EXPECT_TRUE(std::equal(first.begin(), first.begin() + 30, second.begin()));
  EXPECT_FALSE(std::equal(first.begin() + 30, first.end(), second.begin() + 30));
  EXPECT_FALSE(std::equal(first.begin(), first.begin() + 30, other.begin()));
  for (int32_t id : first) {
    EXPECT_GE(id, 16);
    EXPECT_LT(id, 500);
  }
}

TEST(BenchTraceTest, AMixIsPoissonAndZipf) {
  BenchMix mix;
  mix.rate = 50;
  mix.num_requests = 20'000;
  mix.models = {"a", "b", "c"};
  mix.zipf = true;
  const auto trace = MakeBenchTrace(mix);
  ASSERT_EQ(trace.size(), 20'000);
  EXPECT_NEAR(static_cast<double>(trace.back().at_us) / 1e6, 400, 5 * 400 / std::sqrt(20'000));
  double of_a = 0;
  for (size_t i = 0; i < trace.size(); ++i) {
    of_a += trace[i].model == "a" ? 1 : 0;
    if (i > 0) {
      ASSERT_GE(trace[i].at_us, trace[i - 1].at_us);
    }
  }
  EXPECT_NEAR(of_a / 20'000, 6.0 / 11, 0.02);
  mix.rate = 0;
  EXPECT_EQ(MakeBenchTrace(mix).back().at_us, 0);
}

}  // namespace
}  // namespace polyad
