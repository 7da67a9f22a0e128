#pragma once

// The parts of PEFT's adapter_config.json that several families share: which keys are understood,
// and scalars that differ by module (rank_pattern, alpha_pattern). Targets are never resolved from
// the config: tensor names drive everything (zoo section 4.1). Source: peft 0.21.2, tuners_utils
// and get_pattern_key.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/io/json.h"

namespace polyad {

// A number per module path: the first pattern, in file order, for which "(.*\.)?(pattern)" matches
// the whole path, else the default. Patterns are regular expressions, matched in linear time.
class PatternValues {
 public:
  // `pattern_key` ("rank_pattern") may be absent. At most 1024 patterns of 1024 bytes.
  static StatusOr<PatternValues> Parse(const OrderedJsonFields& config, const std::string& key,
                                       const std::string& pattern_key, double absent);
  double For(const std::string& module_path) const;

 private:
  double default_ = 0;
  std::vector<std::pair<std::string, double>> patterns_;  // as full-match expressions
};

// The members of a configuration, after CheckPeftKeys.
StatusOr<OrderedJsonFields> PeftConfigFields(const OrderedJson& config,
                                             std::span<const std::string_view> own);

// CheckKnownKeys of the keys that every PEFT family has and that say nothing of the forward pass or
// are read from tensor names (targets, layers, replaced modules, biases), and the family's own.
Status CheckPeftKeys(const OrderedJson& config, std::span<const std::string_view> own);

// UNIMPLEMENTED where a key outside `understood` is set to something (not null, false, empty, or
// zero): it may change the maths, and nothing is silently dropped.
Status CheckKnownKeys(const OrderedJson& config, std::span<const std::string_view> understood);

// UNIMPLEMENTED "adapter_config.json: <key> = ... is not served (<why>)" where the key is set to
// something.
Status RefuseIfSet(const OrderedJson& config, std::string_view key, std::string_view why);

}  // namespace polyad
