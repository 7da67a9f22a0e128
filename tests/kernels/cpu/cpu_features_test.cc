#include "kernels/cpu/cpu_features.h"

#include <string>

#include "gtest/gtest.h"
#include "kernels/api/wide_lanes.h"

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

TEST(ChooseIsaTest, CodeOutsideTheKernelsFollowsTheChoice) {
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa > BestIsa()) continue;
    ASSERT_TRUE(ChooseIsa(NameOf(isa)).ok());
    EXPECT_EQ(UsesWideLanes(), isa >= Isa::kAvx512) << NameOf(isa);
  }
  const bool before = UsesWideLanes();
  EXPECT_FALSE(ChooseIsa("sse9").ok());
  EXPECT_EQ(UsesWideLanes(), before) << "what is refused changes nothing";
  ASSERT_TRUE(ChooseIsa("auto").ok());
  EXPECT_EQ(UsesWideLanes(), BestIsa() >= Isa::kAvx512);
}

TEST(ChooseIsaTest, NamesTheWordItDoesNotKnow) {
  const absl::StatusOr<Isa> isa = ChooseIsa("sse9");
  EXPECT_EQ(isa.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(isa.status().message()).find("sse9"), std::string::npos);
}

}  // namespace
}  // namespace polyad::cpu
