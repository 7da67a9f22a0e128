// Over 300 schemas and expressions against jsonschema and Python's re: every text that they refuse
// is refused, every text that they allow and we write is taken.

#include <gtest/gtest.h>

#include "tests/engine/constraint/constraint_cases.h"

namespace polyad {
namespace {

TEST(ConstraintGolden, TakesWhatTheOriginalsTake) {
  const std::vector<ConstraintCase> cases = ConstraintCases();
  EXPECT_GE(cases.size(), 300u);
  int64_t num_taken = 0;
  for (const ConstraintCase& one : cases) {
    const auto constraint = Constraint::Compile(one.spec, ByteTrie());
    const bool has_text = one.verdicts.find_first_of("1.") != one.verdicts.npos;
    ASSERT_TRUE(constraint.ok() || !has_text) << one.spec.text << constraint.status();
    if (!constraint.ok()) continue;
    ASSERT_EQ(one.verdicts.size(), one.texts->size());
    for (size_t i = 0; i < one.verdicts.size(); ++i) {
      const bool takes = Takes(**constraint, (*one.texts)[i]);
      num_taken += takes;
      if (one.verdicts[i] != '.') {
        EXPECT_EQ(takes, one.verdicts[i] == '1') << one.spec.text << " on " << (*one.texts)[i];
      }
    }
  }
  EXPECT_GT(num_taken, 2000);
}

}  // namespace
}  // namespace polyad
