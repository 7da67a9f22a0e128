#include "engine/adapters/linear_solve.h"

#include <cmath>
#include <utility>

namespace polyad {
namespace {

void SwapRows(std::vector<double>& m, size_t first, size_t second, size_t width) {
  if (first == second) return;
  for (size_t j = 0; j < width; ++j) std::swap(m[first * width + j], m[second * width + j]);
}

void SubtractRow(std::vector<double>& m, size_t from, size_t what, double factor, size_t width) {
  double* to = m.data() + from * width;
  const double* row = m.data() + what * width;
  for (size_t j = 0; j < width; ++j) to[j] -= factor * row[j];
}

}  // namespace

bool SolveInPlace(std::vector<double>& a, std::vector<double>& b, int64_t size, int64_t columns) {
  const auto n = static_cast<size_t>(size);
  const auto width = static_cast<size_t>(columns);
  for (size_t column = 0; column < n; ++column) {
    size_t pivot = column;
    for (size_t row = column + 1; row < n; ++row) {
      if (std::abs(a[row * n + column]) > std::abs(a[pivot * n + column])) pivot = row;
    }
    const double value = a[pivot * n + column];
    if (value == 0.0 || !std::isfinite(value)) return false;
    SwapRows(a, pivot, column, n);
    SwapRows(b, pivot, column, width);
    for (size_t j = 0; j < n; ++j) a[column * n + j] /= value;
    for (size_t j = 0; j < width; ++j) b[column * width + j] /= value;
    for (size_t row = 0; row < n; ++row) {
      const double factor = a[row * n + column];
      if (row == column || factor == 0.0) continue;
      SubtractRow(a, row, column, factor, n);
      SubtractRow(b, row, column, factor, width);
    }
  }
  return true;
}

std::vector<double> IdentityMatrix(int64_t size) {
  const auto n = static_cast<size_t>(size);
  std::vector<double> identity(n * n, 0.0);
  for (size_t i = 0; i < n; ++i) identity[i * n + i] = 1.0;
  return identity;
}

}  // namespace polyad
