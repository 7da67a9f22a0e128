#include "engine/spec/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace polyad {

namespace {

float Llama3Frequency(float frequency, const RopeSpec& rope) {
  const auto factor = static_cast<float>(rope.factor);
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto high = static_cast<float>(rope.high_freq_factor);
  const auto original = static_cast<float>(rope.original_max_position);
  const float wavelength = static_cast<float>(2.0 * std::numbers::pi) / frequency;
  if (wavelength > original / low) return frequency / factor;
  if (wavelength < original / high) return frequency;
  const float smooth = (original / wavelength - low) / (high - low);
  return (1.0f - smooth) * (frequency / factor) + smooth * frequency;
}

float DynamicTheta(const RopeSpec& rope, int64_t reach) {
  const auto theta = static_cast<float>(rope.theta);
  if (reach <= rope.original_max_position) return theta;
  const float stretch = static_cast<float>(rope.factor) * static_cast<float>(reach) /
                            static_cast<float>(rope.original_max_position) -
                        static_cast<float>(rope.factor - 1.0);
  const auto dim = static_cast<double>(rope.rotary_dim);
  return theta * std::pow(stretch, static_cast<float>(dim / (dim - 2.0)));
}

// Pairs before `first` keep their frequency, those from `last` on are interpolated.
struct YarnBlend {
  double first = 0.0;
  double last = 0.0;
};

YarnBlend BlendOf(const RopeSpec& rope) {
  const auto dim = static_cast<double>(rope.rotary_dim);
  // The pair that turns so often within the original positions.
  const auto pair_of = [&](double turns) {
    const double length = static_cast<double>(rope.original_max_position);
    return dim * std::log(length / (turns * 2.0 * std::numbers::pi)) / (2.0 * std::log(rope.theta));
  };
  YarnBlend blend{pair_of(rope.beta_fast), pair_of(rope.beta_slow)};
  if (rope.whole_pairs) blend = {std::floor(blend.first), std::ceil(blend.last)};
  blend = {std::max(blend.first, 0.0), std::min(blend.last, dim - 1.0)};
  if (blend.first == blend.last) blend.last += 0.001;
  return blend;
}

float YarnFrequency(float power, float pair, const YarnBlend& blend, const RopeSpec& rope) {
  const float along =
      (pair - static_cast<float>(blend.first)) / static_cast<float>(blend.last - blend.first);
  const float kept = 1.0f - std::clamp(along, 0.0f, 1.0f);
  const float interpolated = 1.0f / (static_cast<float>(rope.factor) * power);
  return interpolated * (1.0f - kept) + 1.0f / power * kept;
}

// What two files may say in different precision.
bool Close(double a, double b) { return std::fabs(a - b) <= 1e-6 * std::fabs(a); }

bool Positive(double value) { return value > 0.0 && std::isfinite(value); }

Status CheckFactors(const std::vector<float>& factors, int64_t num_pairs, bool may_lack) {
  const auto count = static_cast<int64_t>(factors.size());
  if (count == 0 && may_lack) return absl::OkStatus();
  if (count != num_pairs) {
    return InvalidArgument("model: rope factors: expected one for each of %d pairs, got %d",
                           num_pairs, count);
  }
  for (const float factor : factors) {
    if (!Positive(static_cast<double>(factor))) {
      return InvalidArgument("model: rope factors: expected positive numbers, got %g", factor);
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<float> RopeFrequencies(const RopeSpec& rope, int64_t reach) {
  std::vector<float> frequencies;
  const bool dynamic = rope.scaling == RopeScaling::kDynamic;
  const float theta = dynamic ? DynamicTheta(rope, reach) : static_cast<float>(rope.theta);
  const bool is_long = rope.scaling == RopeScaling::kLongRope && reach > rope.original_max_position;
  const std::vector<float>& factors = is_long ? rope.long_factors : rope.frequency_factors;
  const YarnBlend blend = rope.scaling == RopeScaling::kYarn ? BlendOf(rope) : YarnBlend{};
  for (int64_t i = 0; i < rope.rotary_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rope.rotary_dim);
    const float power = std::pow(theta, exponent);
    const float factor = factors.empty() ? 1.0f : factors[static_cast<size_t>(i)];
    switch (rope.scaling) {
      case RopeScaling::kNone:
      case RopeScaling::kDynamic:
        frequencies.push_back(1.0f / power / factor);
        break;
      case RopeScaling::kLinear:
        frequencies.push_back(1.0f / power / static_cast<float>(rope.factor) / factor);
        break;
      case RopeScaling::kLlama3:
        frequencies.push_back(Llama3Frequency(1.0f / power, rope) / factor);
        break;
      case RopeScaling::kYarn:
        frequencies.push_back(YarnFrequency(power, static_cast<float>(i), blend, rope) / factor);
        break;
      case RopeScaling::kLongRope:
        frequencies.push_back(1.0f / (factor * power));
        break;
    }
  }
  return frequencies;
}

// Under kDynamic each reach is twice the one before: theta grows by whole steps, so that prompts of
// about the same length can share their prefixes.
std::vector<int64_t> RopeReaches(const RopeSpec& rope, int64_t max_context) {
  std::vector<int64_t> reaches;
  const int64_t original = std::max<int64_t>(rope.original_max_position, 1);
  if (rope.scaling == RopeScaling::kLongRope && original < max_context) {
    reaches.push_back(original);
  }
  if (rope.scaling == RopeScaling::kDynamic) {
    for (int64_t reach = original; reach < max_context; reach *= 2) reaches.push_back(reach);
  }
  reaches.push_back(max_context);
  return reaches;
}

int64_t RopeChoice(const std::vector<int64_t>& reaches, int64_t num_tokens) {
  const auto found = std::lower_bound(reaches.begin(), reaches.end(), num_tokens);
  const auto last = static_cast<int64_t>(reaches.size()) - 1;
  return std::clamp<int64_t>(found - reaches.begin(), 0, std::max<int64_t>(last, 0));
}

int64_t ScaledMaxPosition(const RopeSpec& rope, int64_t max_position) {
  double scaled = 0.0;
  if (rope.scaling == RopeScaling::kLinear || rope.scaling == RopeScaling::kDynamic) {
    scaled = static_cast<double>(max_position) * rope.factor;
  } else if (rope.scaling == RopeScaling::kYarn) {
    scaled = static_cast<double>(rope.original_max_position) * rope.factor;
  }
  scaled = std::min(std::floor(scaled), static_cast<double>(SpecLimits::kPositions));
  return std::max(max_position, static_cast<int64_t>(scaled));
}

bool TurnAlike(const RopeSpec& a, const RopeSpec& b, int64_t max_position) {
  if (a.rotary_dim != b.rotary_dim || !Close(a.attention_factor, b.attention_factor)) return false;
  const std::vector<int64_t> reaches = RopeReaches(a, max_position);
  if (reaches != RopeReaches(b, max_position)) return false;
  return std::all_of(reaches.begin(), reaches.end(), [&](int64_t reach) {
    const std::vector<float> turns = RopeFrequencies(a, reach);
    const std::vector<float> others = RopeFrequencies(b, reach);
    return std::equal(turns.begin(), turns.end(), others.begin(), [](float one, float other) {
      return Close(static_cast<double>(one), static_cast<double>(other));
    });
  });
}

Status CheckRope(const RopeSpec& rope, int64_t head_dim) {
  if (rope.rotary_dim == 0) return absl::OkStatus();
  if (rope.rotary_dim < 0 || rope.rotary_dim % 2 != 0 || rope.rotary_dim > head_dim) {
    return InvalidArgument(
        "model: rotary dimension: expected an even number of a head's %d, got %d", head_dim,
        rope.rotary_dim);
  }
  const RopeScaling scaling = rope.scaling;
  const bool longrope = scaling == RopeScaling::kLongRope;
  POLYAD_RETURN_IF_ERROR(CheckFactors(rope.frequency_factors, rope.rotary_dim / 2, !longrope));
  POLYAD_RETURN_IF_ERROR(CheckFactors(rope.long_factors, rope.rotary_dim / 2, !longrope));
  const bool knows_original = rope.original_max_position > 0;
  if (!knows_original && scaling != RopeScaling::kNone && scaling != RopeScaling::kLinear) {
    return InvalidArgument("model: rope original_max_position_embeddings: expected at least 1");
  }
  if (!Positive(rope.attention_factor)) {
    return InvalidArgument("model: rope attention_factor: expected a positive number, got %g",
                           rope.attention_factor);
  }
  if (scaling == RopeScaling::kLlama3 && !(rope.high_freq_factor > rope.low_freq_factor)) {
    return InvalidArgument("model: rope high_freq_factor %g must exceed low_freq_factor %g",
                           rope.high_freq_factor, rope.low_freq_factor);
  }
  if (scaling == RopeScaling::kYarn &&
      !(rope.beta_fast > rope.beta_slow && rope.beta_slow > 0.0 && rope.theta > 1.0)) {
    return InvalidArgument("model: rope beta_fast %g must exceed beta_slow %g, and theta %g 1",
                           rope.beta_fast, rope.beta_slow, rope.theta);
  }
  if (scaling == RopeScaling::kDynamic && (rope.rotary_dim < 4 || rope.factor < 1.0)) {
    return InvalidArgument(
        "model: dynamic rope scaling: expected a factor of at least 1 and 4 rotary dimensions, got "
        "%g and %d",
        rope.factor, rope.rotary_dim);
  }
  return absl::OkStatus();
}

}  // namespace polyad
