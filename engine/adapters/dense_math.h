#pragma once

// The little linear algebra that lowerings need at load time: products, thin QR and symmetric
// eigenvectors of matrices as large as one base weight. Values are kept in fp32 and every sum is
// taken in fp64. Pure functions; sizes are the caller's to check (CHECK). Loader threads only:
// nothing here runs per token.

#include <cstdint>
#include <vector>

#include "kernels/api/tensor_view.h"

namespace polyad {

// Row-major [rows, cols].
struct Matrix {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<float> values;

  Matrix() = default;
  Matrix(int64_t num_rows, int64_t num_cols)
      : rows(num_rows), cols(num_cols), values(static_cast<size_t>(num_rows * num_cols)) {}
  Matrix(int64_t num_rows, int64_t num_cols, std::vector<float> contents);

  float* Row(int64_t row) { return values.data() + row * cols; }
  const float* Row(int64_t row) const { return values.data() + row * cols; }
  float& At(int64_t row, int64_t col) { return values[static_cast<size_t>(row * cols + col)]; }
  float At(int64_t row, int64_t col) const { return values[static_cast<size_t>(row * cols + col)]; }
};

Matrix Widened(const TensorView& view);  // of f32, f16 or bf16
Matrix Transposed(const Matrix& m);
Matrix Multiply(const Matrix& a, const Matrix& b);            // a b
Matrix MultiplyTransposed(const Matrix& a, const Matrix& b);  // a b'
Matrix Columns(const Matrix& m, int64_t begin, int64_t end);
Matrix Rows(const Matrix& m, int64_t begin, int64_t end);
Matrix Hadamard(Matrix a, const Matrix& b);  // elementwise
double SumOfSquares(const float* values, int64_t count);
void Scale(Matrix& m, double factor);
void ScaleRows(Matrix& m, const std::vector<float>& factors);     // row i by factors[i]
void ScaleColumns(Matrix& m, const std::vector<float>& factors);  // column j by factors[j]

// Orthonormal columns spanning the first `count` columns of m, which must be independent: Q of a
// thin QR, signs such that R's diagonal is positive. A dependent column gives a column of zeros.
Matrix OrthonormalColumns(const Matrix& m, int64_t count);

// The thin Q of m = Q R by Householder reflections, with LAPACK's signs: each reflection turns its
// column against its own first element. rows >= cols.
Matrix HouseholderQ(const Matrix& m);

// The `count` singular triples of m with the largest (or smallest) singular values, as the product
// left * right with left [rows, count] and right [count, cols]: sum of u s v'.
struct FactorPair {
  Matrix left;
  Matrix right;
};
inline constexpr int64_t kMaxEigenSide = 2048;  // the smaller side of m; more takes minutes
FactorPair SingularPart(const Matrix& m, int64_t count, bool largest);

}  // namespace polyad
