#include "engine/model/refine_planes.h"

#include <array>
#include <cmath>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace polyad {
namespace {

// Planes of one matrix with their signs as numbers, and gradients that follow every step.
class Refiner {
 public:
  Refiner(const Matrix& change, const Matrix& gram, const PackedMatrix& packed, Backend& backend,
          SignPlanes& planes)
      : change_(change),
        gram_(gram),
        packed_(packed),
        backend_(backend),
        planes_(planes),
        run_(planes.in / planes.groups),
        one_scale_(planes.planes[0].scale.size() == 1) {
    for (const SignPlane& plane : planes.planes) signs_.push_back(SignsOf(plane));
  }

  void Run(const RefineOptions& options) {
    FindGradient();
    for (int round = 0; round < options.rounds; ++round) {
      Rescale();
      if (options.keep_signs) continue;
      for (int64_t row = 0; row < planes_.out; ++row) Flip(row);
    }
    Rescale();
    Store();
  }

  // d - p
  Matrix Left() const {
    Matrix left = change_;
    for (size_t k = 0; k < signs_.size(); ++k) {
      for (int64_t row = 0; row < left.rows; ++row) {
        for (int64_t col = 0; col < left.cols; ++col) {
          left.At(row, col) -= ScaleAt(k, row, col / run_) * signs_[k].At(row, col);
        }
      }
    }
    return left;
  }
  Matrix Times(const Matrix& rows) const {
    Matrix product(rows.rows, rows.cols);
    GemmArgs args;
    args.weight = &packed_;
    backend_.Gemm(
        args,
        {const_cast<float*>(rows.values.data()), DType::kF32, rows.rows, rows.cols, rows.cols},
        {product.values.data(), rows.rows, rows.cols, rows.cols});
    return product;
  }

 private:
  Matrix SignsOf(const SignPlane& plane) const {
    Matrix signs(planes_.out, planes_.in);
    const int64_t words = (planes_.in + 31) / 32;
    for (int64_t row = 0; row < planes_.out; ++row) {
      for (int64_t col = 0; col < planes_.in; ++col) {
        const uint32_t word = plane.bits[static_cast<size_t>(row * words + col / 32)];
        signs.At(row, col) = (word >> (col % 32) & 1u) != 0 ? 1.0f : -1.0f;
      }
    }
    return signs;
  }

  void Store() {
    const int64_t words = (planes_.in + 31) / 32;
    for (size_t k = 0; k < signs_.size(); ++k) {
      std::vector<uint32_t>& bits = planes_.planes[k].bits;
      std::fill(bits.begin(), bits.end(), 0u);
      for (int64_t row = 0; row < planes_.out; ++row) {
        for (int64_t col = 0; col < planes_.in; ++col) {
          if (signs_[k].At(row, col) < 0) continue;
          bits[static_cast<size_t>(row * words + col / 32)] |= 1u << (col % 32);
        }
      }
    }
  }

  float& ScaleAt(size_t plane, int64_t row, int64_t group) const {
    std::vector<float>& scale = planes_.planes[plane].scale;
    return scale[one_scale_ ? 0 : static_cast<size_t>(row * planes_.groups + group)];
  }

  void FindGradient() { gradient_ = Times(Left()); }

  // Least squares for one plane's scales after another, the others as they are.
  void Rescale() {
    for (size_t k = 0; k < signs_.size(); ++k) {
      if (planes_.groups > 1) {
        for (int64_t row = 0; row < planes_.out; ++row) RescaleGroups(k, row);
      } else {
        RescaleRows(k);
      }
    }
  }

  void RescaleRows(size_t k) {
    const Matrix seen = Times(signs_[k]);  // H s
    std::vector<double> steps(static_cast<size_t>(planes_.out));
    double dot_of_all = 0;
    double size_of_all = 0;
    for (int64_t row = 0; row < planes_.out; ++row) {
      const double dot = Dot(signs_[k].Row(row), gradient_.Row(row), planes_.in);
      const double size = Dot(signs_[k].Row(row), seen.Row(row), planes_.in);
      steps[static_cast<size_t>(row)] = size > 0 ? dot / size : 0.0;
      dot_of_all += dot;
      size_of_all += size;
    }
    const double step_of_all = size_of_all > 0 ? dot_of_all / size_of_all : 0.0;
    if (one_scale_) ScaleAt(k, 0, 0) += static_cast<float>(step_of_all);
    for (int64_t row = 0; row < planes_.out; ++row) {
      const double step = one_scale_ ? step_of_all : steps[static_cast<size_t>(row)];
      if (!one_scale_) ScaleAt(k, row, 0) += static_cast<float>(step);
      Subtract(static_cast<float>(step), seen.Row(row), gradient_.Row(row));
    }
  }

  void RescaleGroups(size_t k, int64_t row) {
    const float* signs = signs_[k].Row(row);
    float* gradient = gradient_.Row(row);
    std::vector<float> seen(static_cast<size_t>(planes_.in));
    for (int64_t group = 0; group < planes_.groups; ++group) {
      const int64_t first = group * run_;
      std::fill(seen.begin(), seen.end(), 0.0f);
      for (int64_t col = first; col < first + run_; ++col) {
        Subtract(-signs[col], gram_.Row(col), seen.data());
      }
      const double size = Dot(signs + first, seen.data() + first, run_);
      if (!(size > 0)) continue;
      const auto step = static_cast<float>(Dot(signs + first, gradient + first, run_) / size);
      ScaleAt(k, row, group) += step;
      Subtract(step, seen.data(), gradient);
    }
  }

  // Gives every element of a row in turn the signs that are best while the others stay.
  void Flip(int64_t row) {
    float* gradient = gradient_.Row(row);
    const size_t num_choices = size_t{1} << signs_.size();
    for (int64_t col = 0; col < planes_.in; ++col) {
      const double curvature = gram_.At(col, col);
      double best = 0;
      double best_step = 0;
      size_t chosen = num_choices;
      for (size_t choice = 0; choice < num_choices; ++choice) {
        double step = 0;
        for (size_t k = 0; k < signs_.size(); ++k) {
          const float sign = (choice >> k & 1u) != 0 ? 1.0f : -1.0f;
          step += ScaleAt(k, row, col / run_) * (sign - signs_[k].At(row, col));
        }
        const double gain = step * (curvature * step - 2.0 * gradient[col]);
        if (gain >= best) continue;
        best = gain;
        best_step = step;
        chosen = choice;
      }
      if (chosen == num_choices) continue;
      for (size_t k = 0; k < signs_.size(); ++k) {
        signs_[k].At(row, col) = (chosen >> k & 1u) != 0 ? 1.0f : -1.0f;
      }
      Subtract(static_cast<float>(best_step), gram_.Row(col), gradient);
    }
  }

  static double Dot(const float* a, const float* b, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(a[i]) * b[i];
    return sum;
  }
  // y -= step x over a row's width.
  void Subtract(float step, const float* x, float* y) const {
    for (int64_t i = 0; i < planes_.in; ++i) y[i] -= step * x[i];
  }

  const Matrix& change_;
  const Matrix& gram_;
  const PackedMatrix& packed_;
  Backend& backend_;
  SignPlanes& planes_;
  const int64_t run_;  // inputs that share a scale
  const bool one_scale_;
  std::vector<Matrix> signs_;  // of each plane, +1 and -1
  Matrix gradient_;            // H (d - p)
};

StatusOr<std::unique_ptr<PackedMatrix>> Pack(const Matrix& gram, Backend& backend) {
  const TensorView view{gram.values.data(), DType::kF32, gram.rows, gram.cols};
  return backend.PackMatrix(std::span(&view, 1));
}

}  // namespace

Status RefinePlanes(const Matrix& change, Matrix gram, const RefineOptions& options,
                    Backend& backend, SignPlanes& planes) {
  double mean = 0;
  for (int64_t i = 0; i < gram.rows; ++i) mean += gram.At(i, i) / static_cast<double>(gram.rows);
  const auto ridge = static_cast<float>(options.identity * mean);
  for (int64_t i = 0; i < gram.rows; ++i) gram.At(i, i) += ridge;
  POLYAD_ASSIGN_OR_RETURN(const std::unique_ptr<PackedMatrix> packed, Pack(gram, backend));
  Refiner(change, gram, *packed, backend, planes).Run(options);
  return absl::OkStatus();
}

StatusOr<OutputError> OutputErrorOf(const Matrix& change, const Matrix& gram, Backend& backend,
                                    const SignPlanes& planes) {
  POLYAD_ASSIGN_OR_RETURN(const std::unique_ptr<PackedMatrix> packed, Pack(gram, backend));
  SignPlanes copy = planes;
  Refiner refiner(change, gram, *packed, backend, copy);
  const Matrix left = refiner.Left();
  const Matrix of_left = refiner.Times(left);
  const Matrix of_change = refiner.Times(change);
  OutputError error;
  for (size_t i = 0; i < left.values.size(); ++i) {
    error.squared_error += static_cast<double>(left.values[i]) * of_left.values[i];
    error.squares += static_cast<double>(change.values[i]) * of_change.values[i];
  }
  return error;
}

}  // namespace polyad
