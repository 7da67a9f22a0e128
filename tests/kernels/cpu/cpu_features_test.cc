#include "kernels/cpu/cpu_features.h"

#include <string>

#include "gtest/gtest.h"

namespace polyad::cpu {
namespace {

TEST(ChooseIsaTest, AutoIsTheBestOfTheMachine) {
  const absl::StatusOr<Isa> isa = ChooseIsa("auto");
  ASSERT_TRUE(isa.ok());
  EXPECT_EQ(*isa, BestIsa());
}

TEST(ChooseIsaTest, GivesEveryLevelUpToTheBestAndRefusesThoseAbove) {
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    const absl::StatusOr<Isa> chosen = ChooseIsa(NameOf(isa));
    if (isa <= BestIsa()) {
      ASSERT_TRUE(chosen.ok()) << NameOf(isa);
      EXPECT_EQ(*chosen, isa);
    } else {
      EXPECT_EQ(chosen.status().code(), absl::StatusCode::kFailedPrecondition) << NameOf(isa);
    }
  }
}

TEST(ChooseIsaTest, NamesTheWordItDoesNotKnow) {
  const absl::StatusOr<Isa> isa = ChooseIsa("sse9");
  EXPECT_EQ(isa.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(isa.status().message()).find("sse9"), std::string::npos);
}

}  // namespace
}  // namespace polyad::cpu
