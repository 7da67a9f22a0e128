#pragma once

// tests/golden/constraints/cases.json as constraints: what jsonschema and Python's re say of each.

#include <string>
#include <vector>

#include "engine/base/check.h"
#include "engine/io/file.h"
#include "engine/io/json.h"
#include "tests/engine/constraint/byte_tokenizer.h"

namespace polyad {

struct ConstraintCase {
  ConstraintSpec spec;
  std::string verdicts;  // by text: 1 must be taken, 0 must not, . either
  const std::vector<std::string>* texts = nullptr;
};

inline std::vector<ConstraintCase> ConstraintCases() {
  const auto file = ReadFileLimited(
      std::string(POLYAD_SOURCE_DIR) + "/tests/golden/constraints/cases.json", int64_t{1} << 20);
  POLYAD_CHECK(file.ok(), "the cases are there");
  const auto json = ParseOrderedJson(*file, "cases.json", JsonLimits{});
  POLYAD_CHECK(json.ok(), "the cases are JSON");
  static const auto& pool = *new auto((*json)["pool"].get<std::vector<std::string>>());
  static const auto& texts = *new auto((*json)["texts"].get<std::vector<std::string>>());
  std::vector<ConstraintCase> cases;
  for (const OrderedJson& row : (*json)["schemas"]) {
    cases.push_back({{.kind = ConstraintSpec::Kind::kJsonSchema, .text = row[0].dump()},
                     row[1].get<std::string>(),
                     &pool});
  }
  for (const OrderedJson& row : (*json)["patterns"]) {
    cases.push_back({{.kind = ConstraintSpec::Kind::kRegex, .text = row[0].get<std::string>()},
                     row[1].get<std::string>(),
                     &texts});
  }
  return cases;
}

}  // namespace polyad
