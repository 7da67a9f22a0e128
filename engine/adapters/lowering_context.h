#pragma once

// What a lowering may look at besides its source: the base's shapes, its weights for the families
// that need them, and which of a file's several adapters the load asked for.

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "engine/adapters/base_weights.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"

namespace polyad {

// Chosen when loading, by name: "task" of a file for several tasks, "rank" of one for several
// ranks.
using AdapterOptions = std::map<std::string, int64_t>;

struct LoweringContext {
  const ModelSpec& spec;
  const BaseWeights* base = nullptr;  // null where no weights are at hand

  // FAILED_PRECONDITION where a family needs the base's weights and none are there.
  StatusOr<const BaseWeights*> Base() const {
    if (base != nullptr) return base;
    return FailedPrecondition("this family is computed from the base's weights: expected a base");
  }

  AdapterOptions options = {};
  int64_t max_context = 0;  // of any request that is served; 0: as long as the model allows
  mutable std::set<std::string> options_taken = {};  // by the one lowering that has this context

  bool HasOption(const std::string& key) const { return options.count(key) > 0; }
  // INVALID_ARGUMENT where it was not given or lies outside [min, max].
  StatusOr<int64_t> TakeOption(const std::string& key, int64_t min, int64_t max) const {
    options_taken.insert(key);
    const auto found = options.find(key);
    if (found == options.end()) {
      return InvalidArgument("option '%s': this adapter needs one in [%d, %d]", key, min, max);
    }
    if (found->second >= min && found->second <= max) return found->second;
    return InvalidArgument("option '%s': expected a value in [%d, %d], got %d", key, min, max,
                           found->second);
  }
  // INVALID_ARGUMENT where the family has no use for one that was given.
  Status CheckAllTaken() const {
    for (const auto& [key, value] : options) {
      if (options_taken.count(key) > 0) continue;
      return InvalidArgument("option '%s': this adapter has no such choice", key);
    }
    return absl::OkStatus();
  }
};

// The task that a file for several is to be served for.
inline StatusOr<int64_t> TaskOf(const LoweringContext& context, int64_t num_tasks) {
  return context.TakeOption("task", 0, num_tasks - 1);
}

}  // namespace polyad
