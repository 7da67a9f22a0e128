#include "server/quota_error.h"

#include <gtest/gtest.h>

namespace polyad {
namespace {

TEST(QuotaErrorTest, SaysWhichQuotaAndWhen) {
  const Status status = QuotaError("max_requests", "at most 4 requests", "one more", 1500);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "quota max_requests: expected at most 4 requests, got one more");
  EXPECT_EQ(BlamedQuota(status), "max_requests");
  EXPECT_EQ(RetryMillis(status), 1500);
  EXPECT_EQ(BlamedQuota(ResourceExhausted("queue: full")), "");
}

TEST(QuotaErrorTest, OnlyWhatMayBeTriedAgainSaysWhen) {
  EXPECT_EQ(RetryMillis(WithRetry(ResourceExhausted("x"), 20)), 20);
  EXPECT_EQ(RetryMillis(WithRetry(Unavailable("x"), 20)), 20);
  EXPECT_EQ(RetryMillis(WithRetry(InvalidArgument("x"), 20)), 0);
  EXPECT_EQ(RetryMillis(WithRetry(absl::OkStatus(), 20)), 0);
  EXPECT_EQ(RetryMillis(WithRetry(WithRetry(Unavailable("x"), 20), 30)), 20) << "said once";
  EXPECT_EQ(RetryMillis(WithRetry(Unavailable("x"), -5)), 1);
  EXPECT_EQ(RetryMillis(WithRetry(Unavailable("x"), int64_t{1} << 60)), kMaxRetryMs);
}

}  // namespace
}  // namespace polyad
