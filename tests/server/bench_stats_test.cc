#include "server/bench_stats.h"

#include <gtest/gtest.h>

namespace polyad {
namespace {

TEST(BenchStatsTest, PercentilesInterpolate) {
  EXPECT_EQ(Percentile({}, 50), 0);
  EXPECT_EQ(Percentile({7}, 99), 7);
  EXPECT_EQ(Percentile({1, 2, 3, 4}, 50), 2.5);
  EXPECT_EQ(Percentile({1, 2, 3, 4}, 100), 4);
}

TEST(BenchStatsTest, SummaryHasTheKeysThatToolsRead) {
  BenchResult result;
  result.duration_s = 2;
  result.completed = 4;
  result.output_tokens = 100;
  result.ttft_ms = {3, 1, 2};
  const std::string json = BenchJson(result);
  for (const char* part :
       {"\"completed\": 4", "\"output_throughput\": 50", "\"request_throughput\": 2",
        "\"median_ttft_ms\": 2", "\"p99_itl_ms\": 0", "\"mean_tpot_ms\"", "\"std_e2el_ms\""}) {
    EXPECT_NE(json.find(part), std::string::npos) << part << " in " << json;
  }
}

}  // namespace
}  // namespace polyad
