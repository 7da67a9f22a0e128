#include "engine/spec/hf_rope.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/io/quote.h"

namespace polyad {

namespace {

constexpr double kMaxTheta = 1e12;
constexpr double kMaxFactor = 1e6;
constexpr char kOriginal[] = "original_max_position_embeddings";
constexpr char kPartial[] = "partial_rotary_factor";

// Of every type: transformers reads those of the given one. "finetuned" is a remark.
constexpr std::string_view kKnownKeys[] = {
    "type",         "rope_type",   "rope_theta",       kPartial,
    "factor",       kOriginal,     "attention_factor", "beta_fast",
    "beta_slow",    "mscale",      "mscale_all_dim",   "truncate",
    "short_factor", "long_factor", "low_freq_factor",  "high_freq_factor",
    "finetuned"};

// One dictionary, either style.
class ScalingReader {
 public:
  // `original` is the configuration's own, outside the dictionary: where given, it counts.
  ScalingReader(const JsonFields& rope, const RopeShape& shape, std::optional<int64_t> original)
      : rope_(rope), shape_(shape), outer_original_(original) {}

  StatusOr<RopeSpec> Read(RopeSpec plain) {
    spec_ = std::move(plain);
    POLYAD_RETURN_IF_ERROR(CheckKeys());
    // "type" is the older key; where both are given, "rope_type" decides.
    POLYAD_ASSIGN_OR_RETURN(const std::string old_type, rope_.StringOr("type", "default"));
    POLYAD_ASSIGN_OR_RETURN(const std::string type, rope_.StringOr("rope_type", old_type));
    POLYAD_ASSIGN_OR_RETURN(spec_.theta, rope_.NumberOr("rope_theta", spec_.theta, 1.0, kMaxTheta));
    if (type == "linear") {
      POLYAD_RETURN_IF_ERROR(ReadLinear());
    } else if (type == "dynamic") {
      POLYAD_RETURN_IF_ERROR(ReadDynamic());
    } else if (type == "llama3") {
      POLYAD_RETURN_IF_ERROR(ReadLlama3());
    } else if (type == "yarn") {
      POLYAD_RETURN_IF_ERROR(ReadYarn());
    } else if (type == "longrope") {
      POLYAD_RETURN_IF_ERROR(ReadLongRope());
    } else if (type != "default") {
      return Unimplemented("%s: rope type %s is not supported", rope_.where(), Quote(type));
    }
    return std::move(spec_);
  }

 private:
  Status CheckKeys() const {
    for (const auto& [key, value] : rope_.object().items()) {
      if (std::find(std::begin(kKnownKeys), std::end(kKnownKeys), key) != std::end(kKnownKeys)) {
        continue;
      }
      return Unimplemented("%s: key %s is not supported", rope_.where(), Quote(key));
    }
    return absl::OkStatus();
  }

  Status ReadOriginal() {
    POLYAD_ASSIGN_OR_RETURN(spec_.original_max_position,
                            rope_.IntOr(kOriginal, shape_.max_position, 1, SpecLimits::kPositions));
    if (outer_original_) spec_.original_max_position = *outer_original_;
    return absl::OkStatus();
  }

  double ImpliedFactor() const {
    return static_cast<double>(shape_.max_position) /
           static_cast<double>(spec_.original_max_position);
  }

  Status ReadLinear() {
    spec_.scaling = RopeScaling::kLinear;
    spec_.original_max_position = shape_.max_position;
    POLYAD_ASSIGN_OR_RETURN(spec_.factor, rope_.Number("factor", 1e-6, kMaxFactor));
    return absl::OkStatus();
  }

  Status ReadDynamic() {
    spec_.scaling = RopeScaling::kDynamic;
    spec_.original_max_position = shape_.max_position;
    POLYAD_ASSIGN_OR_RETURN(spec_.factor, rope_.Number("factor", 1.0, kMaxFactor));
    return absl::OkStatus();
  }

  Status ReadLlama3() {
    spec_.scaling = RopeScaling::kLlama3;
    POLYAD_RETURN_IF_ERROR(ReadOriginal());
    POLYAD_ASSIGN_OR_RETURN(spec_.factor, rope_.Number("factor", 1.0, kMaxFactor));
    POLYAD_ASSIGN_OR_RETURN(spec_.low_freq_factor,
                            rope_.Number("low_freq_factor", 1e-6, kMaxFactor));
    POLYAD_ASSIGN_OR_RETURN(spec_.high_freq_factor,
                            rope_.Number("high_freq_factor", 1e-6, kMaxFactor));
    return absl::OkStatus();
  }

  // A factor of null is the ratio of the two lengths.
  Status ReadYarn() {
    spec_.scaling = RopeScaling::kYarn;
    POLYAD_RETURN_IF_ERROR(ReadOriginal());
    const bool is_null = rope_.object().contains("factor") && !rope_.Has("factor");
    spec_.factor = ImpliedFactor();
    if (!is_null) {
      POLYAD_ASSIGN_OR_RETURN(spec_.factor, rope_.Number("factor", 1e-6, kMaxFactor));
    }
    POLYAD_ASSIGN_OR_RETURN(spec_.beta_fast, rope_.NumberOr("beta_fast", 0.0, 0.0, kMaxFactor));
    POLYAD_ASSIGN_OR_RETURN(spec_.beta_slow, rope_.NumberOr("beta_slow", 0.0, 0.0, kMaxFactor));
    if (spec_.beta_fast == 0.0) spec_.beta_fast = 32.0;
    if (spec_.beta_slow == 0.0) spec_.beta_slow = 1.0;
    POLYAD_ASSIGN_OR_RETURN(spec_.whole_pairs, rope_.BoolOr("truncate", true));
    POLYAD_ASSIGN_OR_RETURN(const double scale, rope_.NumberOr("mscale", 0.0, 0.0, kMaxFactor));
    POLYAD_ASSIGN_OR_RETURN(const double of_all,
                            rope_.NumberOr("mscale_all_dim", 0.0, 0.0, kMaxFactor));
    const auto scaled = [this](double by) {
      return spec_.factor <= 1.0 ? 1.0 : 0.1 * by * std::log(spec_.factor) + 1.0;
    };
    const double own = scale != 0.0 && of_all != 0.0 ? scaled(scale) / scaled(of_all) : scaled(1.0);
    return ReadAttentionFactor(own);
  }

  Status ReadLongRope() {
    spec_.scaling = RopeScaling::kLongRope;
    POLYAD_RETURN_IF_ERROR(ReadOriginal());
    POLYAD_ASSIGN_OR_RETURN(spec_.frequency_factors, Factors("short_factor"));
    POLYAD_ASSIGN_OR_RETURN(spec_.long_factors, Factors("long_factor"));
    POLYAD_ASSIGN_OR_RETURN(spec_.factor,
                            rope_.NumberOr("factor", ImpliedFactor(), 1e-6, kMaxFactor));
    if (spec_.factor <= 1.0) return ReadAttentionFactor(1.0);
    if (spec_.original_max_position < 2) {
      return InvalidArgument("%s: key '%s': expected at least 2", rope_.where(), kOriginal);
    }
    const auto original = static_cast<double>(spec_.original_max_position);
    return ReadAttentionFactor(std::sqrt(1.0 + std::log(spec_.factor) / std::log(original)));
  }

  Status ReadAttentionFactor(double absent) {
    POLYAD_ASSIGN_OR_RETURN(spec_.attention_factor,
                            rope_.NumberOr("attention_factor", absent, 1e-6, kMaxFactor));
    return absl::OkStatus();
  }

  // A number for each pair.
  StatusOr<std::vector<float>> Factors(const std::string& key) const {
    const Json* list = rope_.Find(key);
    const auto expected = static_cast<size_t>(spec_.rotary_dim / 2);
    const std::string wanted = absl::StrFormat("a list of %d positive numbers", expected);
    std::vector<float> factors;
    if (list == nullptr || !list->is_array() || list->size() != expected) {
      return rope_.WrongType(key, wanted);
    }
    for (const Json& factor : *list) {
      if (!factor.is_number()) return rope_.WrongType(key, wanted);
      factors.push_back(factor.get<float>());
      if (!(factors.back() > 0.0f && std::isfinite(factors.back()))) {
        return InvalidArgument("%s: key %s: expected %s, got %g", rope_.where(), Quote(key), wanted,
                               factors.back());
      }
    }
    return factors;
  }

  const JsonFields& rope_;
  const RopeShape& shape_;
  const std::optional<int64_t> outer_original_;
  RopeSpec spec_;
};

// int(head_dim * factor), as transformers takes it: the first so many elements of a head turn.
StatusOr<int64_t> RotaryDim(const JsonFields& fields, int64_t absent, int64_t head_dim) {
  if (!fields.Has(kPartial)) return absent;
  POLYAD_ASSIGN_OR_RETURN(const double partial, fields.Number(kPartial, 0.0, 1.0));
  const auto dim = static_cast<int64_t>(static_cast<double>(head_dim) * partial);
  if (dim >= 2 && dim % 2 == 0) return dim;
  return Unimplemented("%s: key '%s': %g of a head's %d elements is not supported", fields.where(),
                       kPartial, partial, head_dim);
}

}  // namespace

bool NamesRope(const JsonFields& config) {
  static constexpr const char* kKeys[] = {"rope_theta", "rope_scaling", "rope_parameters",
                                          kPartial};
  return std::any_of(std::begin(kKeys), std::end(kKeys),
                     [&](const char* key) { return config.Has(key); });
}

StatusOr<RopeSpec> ReadHfRope(const JsonFields& config, const RopeShape& shape) {
  RopeSpec plain;
  POLYAD_ASSIGN_OR_RETURN(plain.rotary_dim, RotaryDim(config, shape.head_dim, shape.head_dim));
  POLYAD_ASSIGN_OR_RETURN(plain.theta, config.NumberOr("rope_theta", shape.theta, 1.0, kMaxTheta));
  std::optional<int64_t> original;
  if (config.Has(kOriginal)) {
    POLYAD_ASSIGN_OR_RETURN(original, config.Int(kOriginal, 1, SpecLimits::kPositions));
  }
  POLYAD_ASSIGN_OR_RETURN(const auto scaling, config.Object("rope_scaling"));
  POLYAD_ASSIGN_OR_RETURN(const auto parameters, config.Object("rope_parameters"));
  const auto read = [&](const JsonFields& rope) -> StatusOr<RopeSpec> {
    RopeSpec spec = plain;
    POLYAD_ASSIGN_OR_RETURN(spec.rotary_dim, RotaryDim(rope, plain.rotary_dim, shape.head_dim));
    return ScalingReader(rope, shape, original).Read(std::move(spec));
  };
  RopeSpec spec = plain;
  if (parameters.has_value()) {
    POLYAD_ASSIGN_OR_RETURN(spec, read(*parameters));
  }
  if (!scaling.has_value()) return spec;
  POLYAD_ASSIGN_OR_RETURN(const RopeSpec older, read(*scaling));
  if (parameters.has_value() && !(older == spec)) {
    return InvalidArgument("%s: rope_scaling and rope_parameters disagree", config.where());
  }
  return older;
}

}  // namespace polyad
