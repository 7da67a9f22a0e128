// Any bytes as a schema, an expression, a grammar or options: a constraint or a status, within the
// limits; whatever is then drawn out of its masks leads on, or ends where it may.

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/base/check.h"
#include "tests/engine/constraint/byte_tokenizer.h"

namespace {

using Kind = polyad::ConstraintSpec::Kind;

polyad::ConstraintSpec SpecOf(uint8_t kind, std::string text) {
  switch (kind % 4) {
    case 0:
      return {.kind = Kind::kJsonSchema, .text = std::move(text)};
    case 1:
      return {.kind = Kind::kRegex, .text = std::move(text)};
    case 2:
      return {.kind = Kind::kGrammar, .text = std::move(text)};
    default:
      break;
  }
  polyad::ConstraintSpec spec{.kind = Kind::kChoice};
  const size_t split = text.find('\n');
  spec.options.push_back(text.substr(0, split));
  if (split != text.npos) spec.options.push_back(text.substr(split + 1));
  return spec;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto constraint = polyad::Constraint::Compile(SpecOf(data[0], text), polyad::ByteTrie());
  if (!constraint.ok()) {
    POLYAD_CHECK(absl::IsInvalidArgument(constraint.status()), "refused as the client's fault");
    return 0;
  }
  uint32_t random = data[1];
  polyad::ConstraintState state;
  std::vector<int32_t> output;
  for (int step = 0; step < 24; ++step) {
    const auto mask = (*constraint)->Mask(output, state);
    if (!mask.ok()) return 0;
    const bool accepts = (*constraint)->Accepts(state);
    std::vector<int32_t> allowed;
    for (size_t id = 0; id < mask->size() * 64; ++id) {
      if ((*mask)[id / 64] >> (id % 64) & 1) allowed.push_back(static_cast<int32_t>(id));
    }
    POLYAD_CHECK(accepts || !allowed.empty(), "every state can be completed");
    POLYAD_CHECK((*constraint)->IsFinal(state) == (accepts && allowed.empty()), "final says so");
    if (allowed.empty()) return 0;
    random = random * 1664525 + 1013904223;
    output.push_back(allowed[random % allowed.size()]);
    (*constraint)->Advance(output, state);
  }
  return 0;
}
