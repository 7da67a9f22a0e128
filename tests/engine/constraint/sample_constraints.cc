// Draws texts out of every case's masks, as a model of random weights would, for jsonschema and re
// to judge (tests/golden/constraint_goldens.py check):
//   sample_constraints [TEXTS_PER_CASE] [SEED] > FILE
// A text that is not complete after kFreeTokens is led to its end; one that does not get there is
// left out and counted.

#include <cstdio>
#include <cstdlib>
#include <random>

#include "tests/engine/constraint/constraint_cases.h"

namespace polyad {
namespace {

constexpr int kFreeTokens = 60;
constexpr int kMaxTokens = 3000;

std::optional<std::string> Draw(Constraint& constraint, std::mt19937_64& random) {
  static const auto& tokenizer = *new ByteTokenizer();
  ConstraintState state;
  std::vector<int32_t> output;
  std::string text;
  for (int step = 0; step < kMaxTokens; ++step) {
    const auto mask = constraint.Mask(output, state);
    if (!mask.ok()) return std::nullopt;
    std::vector<int32_t> allowed;
    std::vector<int32_t> closing;
    for (int32_t id = 0; id < tokenizer.end(); ++id) {
      if ((*mask)[static_cast<size_t>(id) / 64] >> (id % 64) & 1) {
        allowed.push_back(id);
        if (id == '"' || id == '}' || id == ']') closing.push_back(id);
      }
    }
    // The end is one choice more.
    const bool accepts = constraint.Accepts(state);
    if (accepts &&
        (allowed.empty() || step >= kFreeTokens || random() % (allowed.size() + 1) == 0)) {
      return text;
    }
    if (allowed.empty()) return std::nullopt;
    const auto& from = step >= kFreeTokens && !closing.empty() ? closing : allowed;
    output.push_back(from[random() % from.size()]);
    text += tokenizer.TokenBytes(output.back());
    constraint.Advance(output, state);
  }
  return std::nullopt;
}

int Main(int argc, char** argv) {
  const int per_case = argc > 1 ? std::atoi(argv[1]) : 5;
  std::mt19937_64 random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  const std::vector<ConstraintCase> cases = ConstraintCases();
  int num_cut = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto constraint = Constraint::Compile(cases[i].spec, ByteTrie());
    if (!constraint.ok()) {
      std::fprintf(stderr, "%s: %s\n", cases[i].spec.text.c_str(),
                   std::string(constraint.status().message()).c_str());
      continue;
    }
    for (int k = 0; k < per_case; ++k) {
      const std::optional<std::string> text = Draw(**constraint, random);
      num_cut += !text.has_value();
      if (!text.has_value()) continue;
      const OrderedJson row = {{"case", i}, {"text", *text}};
      std::printf("%s\n", row.dump(-1, ' ', true, OrderedJson::error_handler_t::replace).c_str());
    }
  }
  std::fprintf(stderr, "%d texts did not end\n", num_cut);
  return 0;
}

}  // namespace
}  // namespace polyad

int main(int argc, char** argv) { return polyad::Main(argc, argv); }
