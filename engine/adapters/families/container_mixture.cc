#include "engine/adapters/families/container_mixture.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace polyad {

Status LowerContainerMixture(const ContainerOp& op, SiteRef site, int64_t in,
                             AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor scores, op.Floats("w", {kAnySize, in}));
  Mixture mixture;
  mixture.site = site;
  mixture.rule.num_experts = scores.Dim(0);
  if (scores.Dim(0) < 1 || scores.Dim(0) > kMaxExperts) {
    return InvalidArgument("tensor %s: expected 1 to %d rows, got %d", scores.name, kMaxExperts,
                           scores.Dim(0));
  }
  const bool second = std::any_of(program.mixtures.begin(), program.mixtures.end(),
                                  [site](const Mixture& other) { return other.site == site; });
  if (second) return InvalidArgument("tensor %s: a place has one mixture", scores.name);
  const int64_t all = mixture.rule.num_experts;
  POLYAD_ASSIGN_OR_RETURN(mixture.rule.top_k, op.Int("top_k", all, 1, all));
  POLYAD_ASSIGN_OR_RETURN(const int64_t absolute, op.Int("absolute", 0, 0, 1));
  mixture.rule.absolute = absolute == 1;
  POLYAD_ASSIGN_OR_RETURN(const double temperature, op.Number("temperature", 1.0));
  mixture.rule.temperature = static_cast<float>(temperature);
  if (!(temperature >= 1e-6 && temperature <= 1e6)) {
    return InvalidArgument("zoo.json: %s: key 'temperature': expected 1e-6 to 1e6, got %g",
                           op.name(), temperature);
  }
  mixture.scores = Dense{program.arena.KeepMatrix(std::move(scores.values), all, in), 1.0f};
  program.mixtures.push_back(std::move(mixture));
  return absl::OkStatus();
}

Status JoinContainerMixture(const ContainerOp& op, const AdapterProgram& program, SiteOp& delta) {
  POLYAD_ASSIGN_OR_RETURN(const std::optional<int64_t> expert,
                          op.IntIfAny("expert", 0, kMaxExperts - 1));
  if (!expert.has_value()) return absl::OkStatus();
  for (size_t i = 0; i < program.mixtures.size(); ++i) {
    const Mixture& mixture = program.mixtures[i];
    if (mixture.site != delta.site) continue;
    if (*expert >= mixture.rule.num_experts) {
      return InvalidArgument("zoo.json: %s: key 'expert': expected less than %d, got %d", op.name(),
                             mixture.rule.num_experts, *expert);
    }
    delta.mixture = static_cast<int64_t>(i);
    delta.expert = *expert;
    return absl::OkStatus();
  }
  return InvalidArgument("zoo.json: %s: key 'expert': there is no mx op at this place", op.name());
}

}  // namespace polyad
