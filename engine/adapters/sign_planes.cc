#include "engine/adapters/sign_planes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "engine/base/check.h"

namespace polyad {
namespace {

constexpr int kRounds = 8;  // of signs and scales by turns; the error settles within a few

using Scales = std::array<double, kMaxPlanes>;

// What least squares needs of the elements that share a scale: with S_k their signs,
// planes[k] = S_k . D and shared[j][k] = S_j . S_k.
struct Moments {
  std::array<double, kMaxPlanes> planes{};
  std::array<std::array<double, kMaxPlanes>, kMaxPlanes> shared{};
};

// An element's signs, as +1 and -1; returns what they leave of it.
double SignsOf(double value, const Scales& scales, int64_t num_planes, Scales& signs) {
  for (int64_t k = 0; k < num_planes; ++k) {
    const auto at = static_cast<size_t>(k);
    signs[at] = value >= 0 ? 1.0 : -1.0;
    value -= signs[at] * scales[at];
  }
  return value;
}

void AddMoments(std::span<const float> values, const Scales& scales, int64_t num_planes,
                Moments& moments) {
  Scales signs{};
  for (const float value : values) {
    SignsOf(value, scales, num_planes, signs);
    for (size_t j = 0; j < static_cast<size_t>(num_planes); ++j) {
      moments.planes[j] += signs[j] * static_cast<double>(value);
      for (size_t k = 0; k < j; ++k) moments.shared[j][k] += signs[j] * signs[k];
    }
  }
}

// The scales that minimise the error for the signs that gave the moments of `count` elements;
// false where the planes are not independent, or one of them would point the other way.
bool Solve(const Moments& moments, int64_t count, int64_t num_planes, Scales& scales) {
  const auto n = static_cast<size_t>(num_planes);
  std::array<std::array<double, kMaxPlanes + 1>, kMaxPlanes> rows{};
  for (size_t j = 0; j < n; ++j) {
    for (size_t k = 0; k < n; ++k) {
      rows[j][k] =
          j == k ? static_cast<double>(count) : moments.shared[std::max(j, k)][std::min(j, k)];
    }
    rows[j][n] = moments.planes[j];
  }
  for (size_t j = 0; j < n; ++j) {  // a Gram matrix: its pivots are positive or it is singular
    if (rows[j][j] < 1e-9 * static_cast<double>(count)) return false;
    for (size_t k = j + 1; k < n; ++k) {
      const double factor = rows[k][j] / rows[j][j];
      for (size_t i = j; i <= n; ++i) rows[k][i] -= factor * rows[j][i];
    }
  }
  Scales solved{};
  for (size_t j = n; j-- > 0;) {
    double sum = rows[j][n];
    for (size_t k = j + 1; k < n; ++k) sum -= rows[j][k] * solved[k];
    solved[j] = sum / rows[j][j];
    if (solved[j] < 0) return false;
  }
  scales = solved;
  return true;
}

// Scales of `count` elements; `each` calls its argument with all of them, span by span.
template <typename Each>
Scales FitScales(int64_t count, int64_t num_planes, const Each& each) {
  Scales scales{};
  for (int64_t k = 0; k < num_planes; ++k) {  // each plane for what those before it leave
    double sum = 0;
    each([&](std::span<const float> values) {
      Scales signs{};
      for (const float value : values) sum += std::fabs(SignsOf(value, scales, k, signs));
    });
    scales[static_cast<size_t>(k)] = sum / static_cast<double>(count);
  }
  for (int round = 0; num_planes > 1 && round < kRounds; ++round) {
    Moments moments;
    each([&](std::span<const float> values) { AddMoments(values, scales, num_planes, moments); });
    if (!Solve(moments, count, num_planes, scales)) break;
  }
  for (double& scale : scales) scale = static_cast<float>(scale);
  return scales;
}

// Writes the signs of a row's elements from `first` on.
void Emit(std::span<const float> values, int64_t row, int64_t first, const Scales& scales,
          SignPlanes& made) {
  const int64_t words = (made.in + 31) / 32;
  const auto num_planes = static_cast<int64_t>(made.planes.size());
  Scales signs{};
  for (size_t i = 0; i < values.size(); ++i) {
    const double left = SignsOf(values[i], scales, num_planes, signs);
    const int64_t at = first + static_cast<int64_t>(i);
    for (size_t k = 0; k < made.planes.size(); ++k) {
      if (signs[k] < 0) continue;
      made.planes[k].bits[static_cast<size_t>(row * words + at / 32)] |= 1u << (at % 32);
    }
    made.squared_error += left * left;
    made.squares += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  }
}

void Keep(const Scales& scales, SignPlanes& made) {
  for (size_t k = 0; k < made.planes.size(); ++k) {
    made.planes[k].scale.push_back(static_cast<float>(scales[k]));
  }
}

}  // namespace

int64_t GroupOf(int64_t in, int64_t most) {
  for (int64_t group = most / 32 * 32; group >= 32; group -= 32) {
    if (in % group == 0) return group;
  }
  return in;
}

SignPlanes FitSignPlanes(int64_t out, int64_t in, const PlaneOptions& options,
                         const RowReader& read) {
  POLYAD_CHECK(options.num_planes >= 1 && options.num_planes <= kMaxPlanes, "one to three planes");
  SignPlanes made;
  made.out = out;
  made.in = in;
  const int64_t run = options.scale == PlaneScale::kGroup ? GroupOf(in, options.group) : in;
  made.groups = in / run;
  made.planes.resize(static_cast<size_t>(options.num_planes));
  for (SignPlane& plane : made.planes) {
    plane.bits.resize(static_cast<size_t>(out * ((in + 31) / 32)));
  }
  std::vector<float> row(static_cast<size_t>(in));
  Scales scales{};
  if (options.scale == PlaneScale::kTensor) {
    scales = FitScales(out * in, options.num_planes, [&](const auto& use) {
      for (int64_t i = 0; i < out; ++i) {
        read(i, row.data());
        use(std::span<const float>(row));
      }
    });
    Keep(scales, made);
  }
  for (int64_t i = 0; i < out; ++i) {
    read(i, row.data());
    for (int64_t first = 0; first < in; first += run) {
      const std::span<const float> values(row.data() + first, static_cast<size_t>(run));
      if (options.scale != PlaneScale::kTensor) {
        scales = FitScales(run, options.num_planes, [&](const auto& use) { use(values); });
        Keep(scales, made);
      }
      Emit(values, i, first, scales, made);
    }
  }
  return made;
}

}  // namespace polyad
