#include "engine/adapters/rotations.h"

#include <algorithm>

#include "engine/adapters/linear_solve.h"
#include "engine/base/check.h"

namespace polyad {
namespace {

std::vector<double> Product(const std::vector<double>& a, const std::vector<double>& b, size_t n) {
  std::vector<double> product(n * n, 0.0);
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < n; ++k) {
      const double factor = a[i * n + k];
      for (size_t j = 0; j < n; ++j) product[i * n + j] += factor * b[k * n + j];
    }
  }
  return product;
}

void AddScaled(double scale, const std::vector<double>& from, std::vector<double>& to) {
  for (size_t i = 0; i < to.size(); ++i) to[i] += scale * from[i];
}

}  // namespace

std::vector<double> SkewFromUpper(std::span<const float> upper, int64_t size) {
  const auto n = static_cast<size_t>(size);
  POLYAD_CHECK(upper.size() == n * (n - 1) / 2, "one number for each pair of rows");
  std::vector<double> skew(n * n, 0.0);
  size_t next = 0;
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i + 1; j < n; ++j) {
      const double value = upper[next++];
      skew[i * n + j] = value;
      skew[j * n + i] = -value;
    }
  }
  return skew;
}

std::vector<double> SkewPart(std::span<const float> matrix, int64_t size) {
  const auto n = static_cast<size_t>(size);
  std::vector<double> skew(n * n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      skew[i * n + j] =
          0.5 * (static_cast<double>(matrix[i * n + j]) - static_cast<double>(matrix[j * n + i]));
    }
  }
  return skew;
}

std::vector<double> CayleyTransform(const std::vector<double>& skew, int64_t size) {
  std::vector<double> plus = IdentityMatrix(size);
  std::vector<double> minus = IdentityMatrix(size);
  AddScaled(1.0, skew, plus);
  AddScaled(-1.0, skew, minus);
  // The two commute, so the side of the inverse does not matter.
  const bool solved = SolveInPlace(plus, minus, size, size);
  POLYAD_CHECK(solved, "I + Q of a finite skew-symmetric Q can be inverted");
  return minus;
}

std::vector<double> CayleySeries(const std::vector<double>& skew, int64_t size, int64_t terms) {
  const auto n = static_cast<size_t>(size);
  std::vector<double> sum = IdentityMatrix(size);
  if (terms <= 1) return sum;
  AddScaled(2.0, skew, sum);
  if (terms == 2) return sum;
  const int64_t last = std::max<int64_t>(terms, 4) - 1;
  std::vector<double> power = skew;
  for (int64_t exponent = 2; exponent <= last; ++exponent) {
    power = Product(power, skew, n);
    AddScaled(exponent == last ? 1.0 : 2.0, power, sum);
  }
  return sum;
}

}  // namespace polyad
