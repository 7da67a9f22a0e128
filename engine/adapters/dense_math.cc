#include "engine/adapters/dense_math.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "engine/base/check.h"
#include "engine/io/float_bits.h"
#include "kernels/api/wide_lanes.h"

namespace polyad {

Matrix::Matrix(int64_t num_rows, int64_t num_cols, std::vector<float> contents)
    : rows(num_rows), cols(num_cols), values(std::move(contents)) {
  POLYAD_CHECK(static_cast<int64_t>(values.size()) == rows * cols, "a matrix of its shape");
}

Matrix Widened(const TensorView& view) {
  Matrix m(view.rows, view.cols);
  if (view.dtype == DType::kF32) {
    if (!m.values.empty()) std::memcpy(m.values.data(), view.data, m.values.size() * sizeof(float));
    return m;
  }
  POLYAD_CHECK(view.dtype == DType::kF16 || view.dtype == DType::kBF16, "adapter tensor dtype");
  const auto* bits = static_cast<const uint16_t*>(view.data);
  const bool half = view.dtype == DType::kF16;
  for (size_t i = 0; i < m.values.size(); ++i) {
    m.values[i] = half ? HalfToFloat(bits[i]) : BFloat16ToFloat(bits[i]);
  }
  return m;
}

Matrix Transposed(const Matrix& m) {
  Matrix result(m.cols, m.rows);
  for (int64_t i = 0; i < m.rows; ++i) {
    for (int64_t j = 0; j < m.cols; ++j) result.At(j, i) = m.At(i, j);
  }
  return result;
}

namespace {

// sums += factor * row. Compiled twice; the sums are the same whichever runs (no contraction).
inline void AddScaledLoop(double factor, const float* row, double* sums, int64_t n) {
  for (int64_t j = 0; j < n; ++j) sums[j] += factor * static_cast<double>(row[j]);
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) void AddScaledWide(double factor, const float* row, double* sums,
                                                      int64_t n) {
  for (int64_t j = 0; j < n; ++j) sums[j] += factor * static_cast<double>(row[j]);
}
#endif

void AddScaled(double factor, const float* row, double* sums, int64_t n) {
#if defined(__x86_64__)
  if (UsesWideLanes()) return AddScaledWide(factor, row, sums, n);
#endif
  AddScaledLoop(factor, row, sums, n);
}

}  // namespace

Matrix Multiply(const Matrix& a, const Matrix& b) {
  POLYAD_CHECK(a.cols == b.rows, "factors that fit");
  Matrix result(a.rows, b.cols);
  std::vector<double> sums(static_cast<size_t>(b.cols));
  for (int64_t i = 0; i < a.rows; ++i) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (int64_t k = 0; k < a.cols; ++k) {
      AddScaled(a.At(i, k), b.Row(k), sums.data(), b.cols);
    }
    std::transform(sums.begin(), sums.end(), result.Row(i),
                   [](double x) { return static_cast<float>(x); });
  }
  return result;
}

Matrix MultiplyTransposed(const Matrix& a, const Matrix& b) { return Multiply(a, Transposed(b)); }

Matrix Columns(const Matrix& m, int64_t begin, int64_t end) {
  Matrix result(m.rows, end - begin);
  for (int64_t i = 0; i < m.rows; ++i) std::copy(m.Row(i) + begin, m.Row(i) + end, result.Row(i));
  return result;
}

Matrix Rows(const Matrix& m, int64_t begin, int64_t end) {
  Matrix result(end - begin, m.cols);
  std::copy(m.Row(begin), m.Row(end), result.values.begin());
  return result;
}

Matrix Hadamard(Matrix a, const Matrix& b) {
  POLYAD_CHECK(a.rows == b.rows && a.cols == b.cols, "matrices of one shape");
  for (size_t i = 0; i < a.values.size(); ++i) a.values[i] *= b.values[i];
  return a;
}

double SumOfSquares(const float* values, int64_t count) {
  constexpr int64_t kChains =
      8;  // independent sums, so that an addition need not wait for the last
  double sums[kChains] = {};
  int64_t i = 0;
  for (; i + kChains <= count; i += kChains) {
    for (int64_t chain = 0; chain < kChains; ++chain) {
      const double value = values[i + chain];
      sums[chain] += value * value;
    }
  }
  for (; i < count; ++i) sums[0] += static_cast<double>(values[i]) * values[i];
  return std::accumulate(sums, sums + kChains, 0.0);
}

void Scale(Matrix& m, double factor) {
  if (const auto narrow = static_cast<float>(factor); narrow == factor) {  // rounds to the same
    for (float& value : m.values) value *= narrow;
    return;
  }
  for (float& value : m.values) value = static_cast<float>(value * factor);
}

void ScaleRows(Matrix& m, const std::vector<float>& factors) {
  POLYAD_CHECK(static_cast<int64_t>(factors.size()) == m.rows, "one factor for each row");
  for (int64_t i = 0; i < m.rows; ++i) {
    for (int64_t j = 0; j < m.cols; ++j) m.At(i, j) *= factors[static_cast<size_t>(i)];
  }
}

void ScaleColumns(Matrix& m, const std::vector<float>& factors) {
  POLYAD_CHECK(static_cast<int64_t>(factors.size()) == m.cols, "one factor for each column");
  for (int64_t i = 0; i < m.rows; ++i) {
    for (int64_t j = 0; j < m.cols; ++j) m.At(i, j) *= factors[static_cast<size_t>(j)];
  }
}

namespace {

using Doubles = std::vector<double>;

double Dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// A symmetric matrix (n x n, destroyed) to tridiagonal form by Householder reflections, from the
// last row upwards. Row i of `a` keeps the reflector of step i; `scales[i]` its 2 / |v|^2.
void Tridiagonalise(Doubles& a, int64_t n, Doubles& diagonal, Doubles& below, Doubles& scales) {
  Doubles p(static_cast<size_t>(n));
  for (int64_t i = n - 1; i > 0; --i) {
    double* v = a.data() + i * n;  // its first i elements become the reflector
    diagonal[static_cast<size_t>(i)] = v[i];
    const double norm = std::sqrt(Dot(v, v, i));
    const double last = v[i - 1];
    const double target = last > 0 ? -norm : norm;
    below[static_cast<size_t>(i)] = target;
    v[i - 1] -= target;
    const double square = Dot(v, v, i);
    scales[static_cast<size_t>(i)] = square > 0 ? 2 / square : 0;
    if (square == 0) continue;
    const double scale = 2 / square;
    for (int64_t row = 0; row < i; ++row)
      p[static_cast<size_t>(row)] = scale * Dot(a.data() + row * n, v, i);
    const double half = 0.5 * scale * Dot(p.data(), v, i);
    for (int64_t row = 0; row < i; ++row) p[static_cast<size_t>(row)] -= half * v[row];
    for (int64_t row = 0; row < i; ++row) {
      double* out = a.data() + row * n;
      const double left = v[row];
      const double right = p[static_cast<size_t>(row)];
      for (int64_t col = 0; col < i; ++col)
        out[col] -= left * p[static_cast<size_t>(col)] + right * v[col];
    }
  }
  diagonal[0] = a[0];
}

// One implicitly shifted QL sweep on rows [first, last]; turns the rows of `vectors` along.
void QlSweep(Doubles& d, Doubles& e, Doubles& vectors, int64_t n, int64_t first, int64_t last) {
  const auto at = [](int64_t i) { return static_cast<size_t>(i); };
  const double g0 = (d[at(first + 1)] - d[at(first)]) / (2 * e[at(first)]);
  const double hypot0 = std::hypot(g0, 1.0);
  double g = d[at(last)] - d[at(first)] + e[at(first)] / (g0 + std::copysign(hypot0, g0));
  double s = 1;
  double c = 1;
  double carry = 0;
  for (int64_t i = last - 1; i >= first; --i) {
    const double f = s * e[at(i)];
    const double b = c * e[at(i)];
    const double r = std::hypot(f, g);
    e[at(i + 1)] = r;
    if (r == 0) {  // the sweep split the matrix: undo the pending shift and start again
      d[at(i + 1)] -= carry;
      e[at(last)] = 0;
      return;
    }
    s = f / r;
    c = g / r;
    const double shifted = d[at(i + 1)] - carry;
    const double t = (d[at(i)] - shifted) * s + 2 * c * b;
    carry = s * t;
    d[at(i + 1)] = shifted + carry;
    g = c * t - b;
    double* upper = vectors.data() + (i + 1) * n;
    double* lower = vectors.data() + i * n;
    for (int64_t k = 0; k < n; ++k) {
      const double x = upper[k];
      upper[k] = s * lower[k] + c * x;
      lower[k] = c * lower[k] - s * x;
    }
  }
  d[at(first)] -= carry;
  e[at(first)] = g;
  e[at(last)] = 0;
}

struct Eigen {
  Doubles values;
  Doubles vectors;  // row k belongs to values[k]
};

// Of a symmetric matrix, in no particular order. Source: Golub and Van Loan, Matrix Computations,
// section 8.3.
Eigen SymmetricEigen(Doubles a, int64_t n) {
  const auto count = static_cast<size_t>(n);
  Doubles below(count + 1);
  Doubles scales(count);
  Eigen result{Doubles(count), Doubles(count * count)};
  Tridiagonalise(a, n, result.values, below, scales);
  Doubles e(below.begin() + 1, below.end());  // e[i] couples i and i + 1
  for (size_t i = 0; i < count; ++i) result.vectors[i * count + i] = 1;
  for (int64_t first = 0; first < n; ++first) {
    for (int sweep = 0; sweep < 60; ++sweep) {
      int64_t last = first;
      for (; last < n - 1; ++last) {
        const auto i = static_cast<size_t>(last);
        const double size = std::abs(result.values[i]) + std::abs(result.values[i + 1]);
        if (std::abs(e[i]) <= 1e-16 * size) break;
      }
      if (last == first) break;
      QlSweep(result.values, e, result.vectors, n, first, last);
    }
  }
  for (int64_t k = 0; k < n; ++k) {  // back through the reflectors
    double* x = result.vectors.data() + k * n;
    for (int64_t i = 1; i < n; ++i) {
      const double* v = a.data() + i * n;
      const double factor = scales[static_cast<size_t>(i)] * Dot(v, x, i);
      for (int64_t j = 0; j < i; ++j) x[j] -= factor * v[j];
    }
  }
  return result;
}

// m m' in fp64.
Doubles Gram(const Matrix& m) {
  const Matrix t = Transposed(m);
  Doubles gram(static_cast<size_t>(m.rows * m.rows));
  for (int64_t k = 0; k < t.rows; ++k) {
    const float* row = t.Row(k);
    for (int64_t i = 0; i < m.rows; ++i) {
      const double left = row[i];
      double* out = gram.data() + i * m.rows;
      for (int64_t j = 0; j < m.rows; ++j) out[j] += left * static_cast<double>(row[j]);
    }
  }
  return gram;
}

}  // namespace

Matrix OrthonormalColumns(const Matrix& m, int64_t count) {
  POLYAD_CHECK(count <= m.cols, "columns that exist");
  std::vector<Doubles> columns;
  for (int64_t j = 0; j < count; ++j) {
    Doubles column(static_cast<size_t>(m.rows));
    for (int64_t i = 0; i < m.rows; ++i) column[static_cast<size_t>(i)] = m.At(i, j);
    const double before = std::sqrt(Dot(column.data(), column.data(), m.rows));
    for (int pass = 0; pass < 2; ++pass) {  // twice is enough
      for (const Doubles& done : columns) {
        const double along = Dot(done.data(), column.data(), m.rows);
        for (size_t i = 0; i < column.size(); ++i) column[i] -= along * done[i];
      }
    }
    const double norm = std::sqrt(Dot(column.data(), column.data(), m.rows));
    const double factor = norm > 1e-12 * before ? 1 / norm : 0;
    for (double& value : column) value *= factor;
    columns.push_back(std::move(column));
  }
  Matrix q(m.rows, count);
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t i = 0; i < m.rows; ++i) {
      q.At(i, j) = static_cast<float>(columns[static_cast<size_t>(j)][static_cast<size_t>(i)]);
    }
  }
  return q;
}

Matrix HouseholderQ(const Matrix& m) {
  POLYAD_CHECK(m.rows >= m.cols, "a tall matrix");
  const Matrix transposed = Transposed(m);
  Doubles columns(transposed.values.begin(), transposed.values.end());  // one after another
  const auto column = [&](int64_t j) { return columns.data() + j * m.rows; };
  // x -= 2 (v'x) v / (v'v), all from element `first` on
  const auto reflect = [&](const double* v, double square, int64_t first, double* x) {
    const double factor = 2 * Dot(v + first, x + first, m.rows - first) / square;
    for (int64_t i = first; i < m.rows; ++i) x[i] -= factor * v[i];
  };
  std::vector<Doubles> reflectors;
  Doubles squares;
  for (int64_t k = 0; k < m.cols; ++k) {
    Doubles v(column(k), column(k) + m.rows);
    const double below = Dot(v.data() + k + 1, v.data() + k + 1, m.rows - k - 1);
    const double norm = std::sqrt(below + v[static_cast<size_t>(k)] * v[static_cast<size_t>(k)]);
    v[static_cast<size_t>(k)] += std::copysign(norm, v[static_cast<size_t>(k)]);
    squares.push_back(below == 0 ? 0 : Dot(v.data() + k, v.data() + k, m.rows - k));
    for (int64_t j = k + 1; j < m.cols && below > 0; ++j)
      reflect(v.data(), squares.back(), k, column(j));
    reflectors.push_back(std::move(v));
  }
  Matrix q(m.rows, m.cols);
  Doubles x(static_cast<size_t>(m.rows));
  for (int64_t j = 0; j < m.cols; ++j) {
    std::fill(x.begin(), x.end(), 0.0);
    x[static_cast<size_t>(j)] = 1;
    for (int64_t k = m.cols - 1; k >= 0; --k) {
      const auto at = static_cast<size_t>(k);
      if (squares[at] > 0) reflect(reflectors[at].data(), squares[at], k, x.data());
    }
    for (int64_t i = 0; i < m.rows; ++i) q.At(i, j) = static_cast<float>(x[static_cast<size_t>(i)]);
  }
  return q;
}

FactorPair SingularPart(const Matrix& m, int64_t count, bool largest) {
  const bool wide = m.cols >= m.rows;
  const int64_t side = std::min(m.rows, m.cols);
  POLYAD_CHECK(count <= side && side <= kMaxEigenSide, "singular triples that exist");
  const Eigen eigen = SymmetricEigen(Gram(wide ? m : Transposed(m)), side);
  std::vector<int64_t> order(static_cast<size_t>(side));
  for (int64_t i = 0; i < side; ++i) order[static_cast<size_t>(i)] = i;
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const double x = eigen.values[static_cast<size_t>(a)];
    const double y = eigen.values[static_cast<size_t>(b)];
    return x != y ? (largest ? x > y : x < y) : a < b;
  });
  Matrix vectors(count, side);
  for (int64_t k = 0; k < count; ++k) {
    const double* from = eigen.vectors.data() + order[static_cast<size_t>(k)] * side;
    std::transform(from, from + side, vectors.Row(k),
                   [](double x) { return static_cast<float>(x); });
  }
  // With u the left vectors, sum u s v' = u (u' m); with v the right ones, (m v) v'.
  if (wide) {
    Matrix right = Multiply(vectors, m);
    return {Transposed(vectors), std::move(right)};
  }
  Matrix left = MultiplyTransposed(m, vectors);
  return {std::move(left), std::move(vectors)};
}

}  // namespace polyad
