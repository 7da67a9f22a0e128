#include "engine/adapters/own_rope.h"

#include <algorithm>
#include <string>

#include "engine/io/json.h"
#include "engine/spec/hf_rope.h"
#include "engine/spec/rope_frequencies.h"

namespace polyad {
namespace {

constexpr char kFile[] = "config.json";
constexpr int64_t kLargest = int64_t{1} << 40;

Status CheckShapes(const JsonFields& config, const ModelSpec& base) {
  const std::pair<const char*, int64_t> shapes[] = {{"hidden_size", base.hidden_size},
                                                    {"num_hidden_layers", base.num_layers},
                                                    {"num_attention_heads", base.num_heads},
                                                    {"num_key_value_heads", base.num_kv_heads},
                                                    {"intermediate_size", base.intermediate_size},
                                                    {"head_dim", base.head_dim}};
  for (const auto& [key, expected] : shapes) {
    POLYAD_ASSIGN_OR_RETURN(const int64_t given, config.IntOr(key, expected, 0, kLargest));
    if (given == expected) continue;
    return FailedPrecondition("%s: key '%s': expected the base's %d, got %d", kFile, key, expected,
                              given);
  }
  return absl::OkStatus();
}

// The base's max_position_embeddings as its file has them.
int64_t UnscaledMaxPosition(const ModelSpec& base) {
  const RopeScaling scaling = base.rope.scaling;
  const bool raised = scaling == RopeScaling::kLinear || scaling == RopeScaling::kDynamic;
  return raised ? base.rope.original_max_position : base.max_position;
}

}  // namespace

StatusOr<std::optional<OwnRope>> ReadOwnRope(const AdapterSource& source,
                                             const LoweringContext& context) {
  const ModelSpec& base = context.spec;
  if (source.model_config().empty()) return std::optional<OwnRope>();
  POLYAD_ASSIGN_OR_RETURN(const Json json, ParseJson(source.model_config(), kFile, JsonLimits{}));
  POLYAD_ASSIGN_OR_RETURN(const JsonFields config, JsonFields::Of(json, kFile));
  if (!NamesRope(config)) return std::optional<OwnRope>();
  if (base.rope.rotary_dim == 0) {
    return FailedPrecondition("%s: it scales a rotary embedding, and the base has none", kFile);
  }
  POLYAD_RETURN_IF_ERROR(CheckShapes(config, base));
  POLYAD_ASSIGN_OR_RETURN(const int64_t max_position,
                          config.IntOr("max_position_embeddings", UnscaledMaxPosition(base), 1,
                                       SpecLimits::kPositions));
  OwnRope own;
  POLYAD_ASSIGN_OR_RETURN(own.rope,
                          ReadHfRope(config, {base.head_dim, max_position, base.rope.theta}));
  POLYAD_RETURN_IF_ERROR(CheckRope(own.rope, base.head_dim));
  own.max_position = ScaledMaxPosition(own.rope, max_position);
  const int64_t longest = std::max(own.max_position, base.max_position);
  if (own.max_position <= base.max_position && TurnAlike(own.rope, base.rope, longest)) {
    return std::optional<OwnRope>();
  }
  own.max_context = own.max_position;
  if (context.max_context > 0) own.max_context = std::min(own.max_context, context.max_context);
  return std::optional<OwnRope>(std::move(own));
}

}  // namespace polyad
