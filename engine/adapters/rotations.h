#pragma once

// Rotation matrices that adapters store as something smaller: a skew-symmetric matrix and its
// Cayley transform, whole or as the first terms of its series (OFT, BOFT). Everything is double
// precision and row-major, [size, size]; pure functions of the loader. Source: zoo section 5.4;
// peft 0.21.2, tuners/oft and tuners/boft.

#include <cstdint>
#include <span>
#include <vector>

namespace polyad {

// The skew-symmetric matrix with `upper` [size * (size - 1) / 2] above its diagonal, row by row.
std::vector<double> SkewFromUpper(std::span<const float> upper, int64_t size);
// (M - M') / 2.
std::vector<double> SkewPart(std::span<const float> matrix, int64_t size);
// (I - Q) (I + Q)^-1: a rotation. I + Q is never singular where Q is skew-symmetric.
std::vector<double> CayleyTransform(const std::vector<double>& skew, int64_t size);
// The series that PEFT calls Cayley-Neumann, in `terms` >= 1: I + 2 Q + ... + 2 Q^(terms-2) +
// Q^(terms-1); I for one term, I + 2 Q for two, and three terms are computed as four.
std::vector<double> CayleySeries(const std::vector<double>& skew, int64_t size, int64_t terms);

}  // namespace polyad
