#include "engine/spec/gguf_rope.h"

#include <cmath>
#include <vector>

#include "engine/io/quote.h"
#include "engine/spec/rope_frequencies.h"

namespace polyad {

namespace {

constexpr char kFactors[] = "rope_freqs.weight";
constexpr char kShortFactors[] = "rope_factors_short.weight";
constexpr char kLongFactors[] = "rope_factors_long.weight";
constexpr double kMaxFactor = 1e6;

class RopeReader {
 public:
  RopeReader(const GgufFile& file, const std::string& architecture, int64_t max_position)
      : file_(file), prefix_(architecture + ".rope."), max_position_(max_position) {}

  StatusOr<RopeSpec> Read(int64_t head_dim) {
    const GgufMetadata& metadata = file_.metadata();
    POLYAD_ASSIGN_OR_RETURN(spec_.theta, metadata.NumberOr(Key("freq_base"), 10000.0, 1.0, 1e12));
    POLYAD_ASSIGN_OR_RETURN(spec_.rotary_dim, metadata.IntOr(Key("dimension_count"), head_dim, 1,
                                                             SpecLimits::kHeadDim));
    // The older spelling of linear scaling is a bare factor.
    POLYAD_ASSIGN_OR_RETURN(const double old_factor, Number("scale_linear", 1.0, 1e-6));
    POLYAD_ASSIGN_OR_RETURN(spec_.factor, Number("scaling.factor", old_factor, 1e-6));
    POLYAD_ASSIGN_OR_RETURN(std::string type, metadata.StringOr(Key("scaling.type"), "linear"));
    if (file_.Find(kLongFactors) != nullptr || file_.Find(kShortFactors) != nullptr) {
      type = "longrope";  // whatever it is called, the tensors turn it
    }
    POLYAD_RETURN_IF_ERROR(ReadType(type));
    if (spec_.scaling != RopeScaling::kLongRope && file_.Find(kFactors) != nullptr) {
      POLYAD_ASSIGN_OR_RETURN(spec_.frequency_factors, Factors(kFactors));
    }
    return std::move(spec_);
  }

 private:
  std::string Key(const std::string& suffix) const { return prefix_ + suffix; }
  StatusOr<double> Number(const std::string& suffix, double absent, double min) const {
    return file_.metadata().NumberOr(Key(suffix), absent, min, kMaxFactor);
  }

  Status ReadType(const std::string& type) {
    if (type == "yarn") return ReadYarn();
    if (type == "longrope") return ReadLongRope();
    if (type != "linear" && type != "none") {
      return Unimplemented("key '%s': %s is not supported", Key("scaling.type"), Quote(type));
    }
    if (type == "none" || spec_.factor == 1.0) {
      spec_.factor = 1.0;
      return absl::OkStatus();
    }
    spec_.scaling = RopeScaling::kLinear;
    spec_.original_max_position = max_position_;
    return absl::OkStatus();
  }

  Status ReadOriginal() {
    POLYAD_ASSIGN_OR_RETURN(spec_.original_max_position,
                            file_.metadata().IntOr(Key("scaling.original_context_length"),
                                                   max_position_, 1, SpecLimits::kPositions));
    return absl::OkStatus();
  }

  // Its own factor of the attention multiplies the one that the scaling implies.
  Status ReadYarn() {
    spec_.scaling = RopeScaling::kYarn;
    POLYAD_RETURN_IF_ERROR(ReadOriginal());
    for (const char* key : {"scaling.yarn_ext_factor", "scaling.yarn_log_multiplier"}) {
      const double plain = std::string(key).ends_with("ext_factor") ? 1.0 : 0.0;
      POLYAD_ASSIGN_OR_RETURN(const double given, Number(key, plain, -kMaxFactor));
      if (given != plain) return Unimplemented("key '%s': %g is not supported", Key(key), given);
    }
    POLYAD_ASSIGN_OR_RETURN(spec_.beta_fast, Number("scaling.yarn_beta_fast", 32.0, 1e-6));
    POLYAD_ASSIGN_OR_RETURN(spec_.beta_slow, Number("scaling.yarn_beta_slow", 1.0, 1e-6));
    POLYAD_ASSIGN_OR_RETURN(const double old_name, Number("scaling.attn_factor", 1.0, 1e-6));
    POLYAD_ASSIGN_OR_RETURN(spec_.attention_factor,
                            Number("scaling.yarn_attn_factor", old_name, 1e-6));
    if (spec_.factor > 1.0) spec_.attention_factor *= 1.0 + 0.1 * std::log(spec_.factor);
    return absl::OkStatus();
  }

  Status ReadLongRope() {
    spec_.scaling = RopeScaling::kLongRope;
    POLYAD_RETURN_IF_ERROR(ReadOriginal());
    POLYAD_ASSIGN_OR_RETURN(spec_.attention_factor, Number("scaling.attn_factor", 1.0, 1e-6));
    POLYAD_ASSIGN_OR_RETURN(spec_.frequency_factors, Factors(kShortFactors));
    POLYAD_ASSIGN_OR_RETURN(spec_.long_factors, Factors(kLongFactors));
    return absl::OkStatus();
  }

  StatusOr<std::vector<float>> Factors(const std::string& name) const {
    if (file_.Find(name) == nullptr) {
      return InvalidArgument("tensor '%s': expected with this rope scaling, got none", name);
    }
    POLYAD_ASSIGN_OR_RETURN(const OwnedTensor tensor, file_.Read(name));
    POLYAD_ASSIGN_OR_RETURN(std::vector<float> factors, ToFloats(tensor));
    if (static_cast<int64_t>(factors.size()) != spec_.rotary_dim / 2) {
      return InvalidArgument("tensor '%s': expected [%d], got %s", name, spec_.rotary_dim / 2,
                             ShapeToString(tensor.shape));
    }
    for (const float factor : factors) {
      if (!(factor > 0.0f && std::isfinite(factor))) {
        return InvalidArgument("tensor '%s': expected positive factors", name);
      }
    }
    return factors;
  }

  const GgufFile& file_;
  const std::string prefix_;
  const int64_t max_position_;
  RopeSpec spec_;
};

}  // namespace

Status ReadGgufRope(const GgufFile& file, const std::string& architecture, ModelSpec& spec) {
  RopeReader reader(file, architecture, spec.max_position);
  POLYAD_ASSIGN_OR_RETURN(spec.rope, reader.Read(spec.head_dim));
  // Its rows of q and k interleave the pairs of a whole head, which is undone while loading.
  if (spec.architecture == Architecture::kLlama && spec.rope.rotary_dim != spec.head_dim) {
    return Unimplemented("model: rotary embedding of %d of a head's %d elements is not supported",
                         spec.rope.rotary_dim, spec.head_dim);
  }
  spec.max_position = ScaledMaxPosition(spec.rope, spec.max_position);
  return absl::OkStatus();
}

}  // namespace polyad
