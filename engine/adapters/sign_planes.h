#pragma once

// A change of weights D [out, in] as a sum of 1-bit planes (BitDelta: Liu et al. 2024, one plane):
//   D ~ sum over planes k of scale_k * sign_k
// Plane k's signs are those of what the planes before it leave, zero counting as +1. Scales are the
// least squares' for those signs: mean |D| for one plane; for several, signs and scales take turns
// until they settle. A scale stands for the whole matrix, a row, or a run of inputs in a row. D is
// read row by row and never held. Sums are taken in fp64 in one order. Pure functions.

#include <cstdint>
#include <functional>
#include <vector>

namespace polyad {

enum class PlaneScale : uint8_t { kTensor, kRow, kGroup };

inline constexpr int64_t kMaxPlanes = 3;

struct PlaneOptions {
  int64_t num_planes = 1;  // 1 to kMaxPlanes
  PlaneScale scale = PlaneScale::kRow;
  int64_t group = 128;  // inputs a scale at most (GroupOf)
};

struct SignPlane {
  std::vector<uint32_t> bits;  // [out, ceil(in / 32)], lowest first, set: +1
  std::vector<float> scale;    // [1], [out] or [out, groups]
};

struct SignPlanes {
  int64_t out = 0;
  int64_t in = 0;
  int64_t groups = 1;
  std::vector<SignPlane> planes;
  double squared_error = 0;  // |D - planes|^2
  double squares = 0;        // |D|^2
};

// out[0, in) = row `row` of D.
using RowReader = std::function<void(int64_t row, float* out)>;

// The largest multiple of 32 that divides `in` and is at most `most`; `in` itself where none does.
int64_t GroupOf(int64_t in, int64_t most);

SignPlanes FitSignPlanes(int64_t out, int64_t in, const PlaneOptions& options,
                         const RowReader& read);

}  // namespace polyad
