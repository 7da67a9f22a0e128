#include "engine/spec/hf_rope.h"

#include "engine/io/quote.h"

namespace polyad {

namespace {

constexpr double kMaxTheta = 1e12;
constexpr double kMaxFactor = 1e6;

StatusOr<std::string> ReadType(const JsonFields& rope) {
  // "type" is the older key; where both are given, "rope_type" decides.
  POLYAD_ASSIGN_OR_RETURN(const std::string old_type, rope.StringOr("type", "default"));
  return rope.StringOr("rope_type", old_type);
}

Status ReadLlama3(const JsonFields& rope, int64_t absent_positions, RopeSpec& spec) {
  spec.scaling = RopeScaling::kLlama3;
  POLYAD_ASSIGN_OR_RETURN(spec.factor, rope.Number("factor", 1.0, kMaxFactor));
  POLYAD_ASSIGN_OR_RETURN(spec.low_freq_factor, rope.Number("low_freq_factor", 1e-6, kMaxFactor));
  POLYAD_ASSIGN_OR_RETURN(spec.high_freq_factor, rope.Number("high_freq_factor", 1e-6, kMaxFactor));
  POLYAD_ASSIGN_OR_RETURN(
      spec.original_max_position,
      rope.IntOr("original_max_position_embeddings", absent_positions, 1, SpecLimits::kPositions));
  return absl::OkStatus();
}

// One dictionary, either style; `theta` is what it takes where it names none.
StatusOr<RopeSpec> ReadScaling(const JsonFields& rope, RopeSpec spec, int64_t max_position) {
  POLYAD_ASSIGN_OR_RETURN(const std::string type, ReadType(rope));
  POLYAD_ASSIGN_OR_RETURN(spec.theta, rope.NumberOr("rope_theta", spec.theta, 1.0, kMaxTheta));
  POLYAD_ASSIGN_OR_RETURN(const double partial,
                          rope.NumberOr("partial_rotary_factor", 1.0, 0.0, 1.0));
  if (partial != 1.0) {
    return Unimplemented("%s: key 'partial_rotary_factor': %g is not supported", rope.where(),
                         partial);
  }
  if (type == "default") return spec;
  if (type == "linear") {
    spec.scaling = RopeScaling::kLinear;
    POLYAD_ASSIGN_OR_RETURN(spec.factor, rope.Number("factor", 1e-6, kMaxFactor));
    return spec;
  }
  if (type == "llama3") {
    POLYAD_RETURN_IF_ERROR(ReadLlama3(rope, max_position, spec));
    return spec;
  }
  return Unimplemented("%s: rope type %s is not supported", rope.where(), Quote(type));
}

}  // namespace

StatusOr<RopeSpec> ReadHfRope(const JsonFields& config, int64_t head_dim, int64_t max_position) {
  RopeSpec plain;
  plain.rotary_dim = head_dim;
  POLYAD_ASSIGN_OR_RETURN(plain.theta, config.NumberOr("rope_theta", 10000.0, 1.0, kMaxTheta));
  POLYAD_ASSIGN_OR_RETURN(const double partial,
                          config.NumberOr("partial_rotary_factor", 1.0, 0.0, 1.0));
  if (partial != 1.0) {
    return Unimplemented("%s: key 'partial_rotary_factor': %g is not supported", config.where(),
                         partial);
  }
  POLYAD_ASSIGN_OR_RETURN(
      const int64_t original,
      config.IntOr("original_max_position_embeddings", max_position, 1, SpecLimits::kPositions));
  POLYAD_ASSIGN_OR_RETURN(const auto scaling, config.Object("rope_scaling"));
  POLYAD_ASSIGN_OR_RETURN(const auto parameters, config.Object("rope_parameters"));
  RopeSpec spec = plain;
  if (parameters.has_value()) {
    POLYAD_ASSIGN_OR_RETURN(spec, ReadScaling(*parameters, plain, original));
  }
  if (!scaling.has_value()) return spec;
  POLYAD_ASSIGN_OR_RETURN(const RopeSpec older, ReadScaling(*scaling, plain, original));
  if (parameters.has_value() && !(older == spec)) {
    return InvalidArgument("%s: rope_scaling and rope_parameters disagree", config.where());
  }
  return older;
}

}  // namespace polyad
