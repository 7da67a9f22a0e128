#include "tests/kernels/matrix_cases.h"

#include "absl/strings/str_format.h"
#include "tests/kernels/op_inputs.h"
#include "tests/kernels/stored_weight.h"

namespace polyad::test {
namespace {

// What rounding x to 8 bits in blocks of 32 may do to w . x.
double RoundedBlocks(const float* w, const float* x, int64_t in) {
  double bound = 0;
  for (int64_t block = 0; block < in; block += 32) {
    double largest = 0;
    double weights = 0;
    for (int64_t i = block; i < block + 32; ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(x[i])));
      weights += std::abs(static_cast<double>(w[i]));
    }
    bound += largest / 254 * 1.01 * weights;
  }
  return bound;
}

// 8 eps |w| |x| for sums in fp32. Integer weights in auto mode take x in 8 bits per block of 32 as
// well.
std::vector<double> ProductTolerance(const Backend& backend, const GemmShape& shape,
                                     const float* weights, const float* inputs) {
  const bool integers = InfoOf(shape.dtype).block_elements > 1 || shape.dtype == DType::kGrouped;
  const bool rounds_x = integers && backend.activation_dtype() == DType::kBF16;
  std::vector<double> tolerance;
  for (int64_t t = 0; t < shape.rows; ++t) {
    for (int64_t o = 0; o < shape.out; ++o) {
      const float* w = weights + o * shape.in;
      const float* x = inputs + t * shape.in;
      double bound = 8 * kEps32 * (NormOf(w, shape.in) * NormOf(x, shape.in) + 1);
      if (rounds_x) bound += RoundedBlocks(w, x, shape.in);
      tolerance.push_back(bound);
    }
  }
  return tolerance;
}

class GemmRun final : public OpRun {
 public:
  GemmRun(Backend& backend, const GemmShape& shape)
      : backend_(backend),
        shape_(shape),
        weight_(MakeWeight(shape.dtype, shape.out, shape.in, 40)),
        x_values_(RandomValues(shape.rows * shape.in, 41)),
        x_(backend, shape.rows, shape.in, x_values_),
        y_values_(RandomValues(shape.rows * shape.out, 42)),
        y_(shape.rows, shape.out),
        bias_(RandomValues(shape.out, 43)) {
    const TensorView view = weight_.view();
    packed_ = *backend.PackMatrix(std::span(&view, 1));
  }
  void Run() override {
    if (shape_.accumulate) y_.values = y_values_;
    backend_.Gemm({packed_.get(), shape_.bias ? bias_.data() : nullptr, shape_.accumulate, {}},
                  x_.rows(), y_.view());
  }
  std::vector<double> Output() const override { return y_.Values(); }

  std::vector<double> Tolerance() const override {
    std::vector<double> tolerance =
        ProductTolerance(backend_, shape_, weight_.values.data(), x_values_.data());
    for (size_t i = 0; i < tolerance.size(); ++i) {
      const size_t o = i % static_cast<size_t>(shape_.out);
      tolerance[i] += 8 * kEps32 * (std::abs(y_values_[i]) + std::abs(bias_[o]));
    }
    return tolerance;
  }

 private:
  Backend& backend_;
  const GemmShape shape_;
  const StoredWeight weight_;
  const std::vector<float> x_values_;
  ActivationBuffer x_;
  const std::vector<float> y_values_;
  FloatBuffer y_;
  const std::vector<float> bias_;
  std::unique_ptr<PackedMatrix> packed_;
};

// Rows [first_row, first_row + out) of a matrix that has others around them.
class ProductOfRowsRun final : public OpRun {
 public:
  ProductOfRowsRun(Backend& backend, const GemmShape& shape, int64_t first_row)
      : backend_(backend),
        shape_(shape),
        first_row_(first_row),
        weight_(MakeWeight(shape.dtype, first_row + shape.out + kRowsBehind, shape.in, 40)),
        x_(shape.rows, shape.in, RandomValues(shape.rows * shape.in, 41)),
        y_(shape.rows, shape.out) {
    const TensorView view = weight_.view();
    packed_ = *backend.PackMatrix(std::span(&view, 1));
  }
  void Run() override { backend_.ProductOfRows(*packed_, first_row_, x_.view(), y_.view()); }
  std::vector<double> Output() const override { return y_.Values(); }
  std::vector<double> Tolerance() const override {
    return ProductTolerance(backend_, shape_, weight_.values.data() + first_row_ * shape_.in,
                            x_.values.data());
  }

 private:
  static constexpr int64_t kRowsBehind = 3;

  Backend& backend_;
  const GemmShape shape_;
  const int64_t first_row_;
  const StoredWeight weight_;
  FloatBuffer x_;
  FloatBuffer y_;
  std::unique_ptr<PackedMatrix> packed_;
};

class EmbedRun final : public OpRun {
 public:
  EmbedRun(Backend& backend, DType dtype, int64_t rows, int64_t cols)
      : backend_(backend),
        weight_(MakeWeight(dtype, 11, cols, 50)),
        out_(rows, cols),
        sum_(rows, cols) {
    const TensorView view = weight_.view();
    packed_ = *backend.PackMatrix(std::span(&view, 1));
    for (int64_t row = 0; row < rows; ++row) ids_.push_back(static_cast<int32_t>(row * 7 % 11));
  }
  void Run() override {
    backend_.Embed(*packed_, ids_, out_.view());
    sum_.values = out_.values;
    backend_.AddRows(*packed_, ids_, sum_.view());
  }
  std::vector<double> Output() const override {
    std::vector<double> values = out_.Values();
    values.insert(values.end(), sum_.values.begin(), sum_.values.end());
    return values;
  }
  std::vector<double> Tolerance() const override {  // stored numbers decode exactly, twice them too
    return std::vector<double>(2 * out_.values.size(), 0.0);
  }

 private:
  Backend& backend_;
  const StoredWeight weight_;
  FloatBuffer out_;
  FloatBuffer sum_;
  std::unique_ptr<PackedMatrix> packed_;
  std::vector<int32_t> ids_;
};

constexpr int64_t kRowsPerAdapter = 2;
constexpr float kScale = 0.75f;

class LowRankRun final : public OpRun {
 public:
  LowRankRun(Backend& backend, DType dtype, const std::vector<int64_t>& ranks, int64_t in,
             int64_t out)
      : backend_(backend),
        in_(in),
        out_(out),
        rows_(kRowsPerAdapter * static_cast<int64_t>(ranks.size())),
        x_values_(RandomValues(rows_ * in, 60)),
        x_(backend, rows_, in, x_values_),
        y_values_(RandomValues(rows_ * (out + 1), 61)),
        y_(rows_, out + 1) {
    PackShare share;
    for (size_t i = 0; i < ranks.size(); ++i) {
      a_.push_back(MakeWeight(dtype, ranks[i], in, static_cast<uint32_t>(70 + i)));
      b_.push_back(MakeWeight(dtype, out, ranks[i], static_cast<uint32_t>(90 + i)));
      if (ranks[i] == 0) continue;  // rows of the base model
      packed_.push_back(*backend.PackDelta(LowRank{a_[i].view(), b_[i].view(), kScale}, share));
      const auto begin = static_cast<int64_t>(i) * kRowsPerAdapter;
      segments_.push_back({begin, begin + kRowsPerAdapter, 1, packed_.back().get()});
    }
  }
  void Run() override {
    y_.values = y_values_;
    backend_.Apply(segments_, x_.rows(), y_.view());
  }
  std::vector<double> Output() const override { return y_.Values(); }

  // Sums as in a product; in auto mode the middle and the scaled B are rounded to bf16 once each.
  std::vector<double> Tolerance() const override {
    const double rounded = backend_.activation_dtype() == DType::kBF16 ? 2.1 * kEps16 : 0.0;
    std::vector<double> tolerance(y_.values.size(), 0.0);
    for (int64_t t = 0; t < rows_; ++t) {
      const auto adapter = static_cast<size_t>(t / kRowsPerAdapter);
      const StoredWeight& a = a_[adapter];
      const float* x = x_values_.data() + t * in_;
      for (int64_t o = 0; o < out_ && a.rows > 0; ++o) {
        double bound =
            8 * kEps32 * (1 + std::abs(y_values_[static_cast<size_t>(t * (out_ + 1) + o + 1)]));
        for (int64_t r = 0; r < a.rows; ++r) {
          const float* row = a.values.data() + r * in_;
          double middle = 0;
          for (int64_t i = 0; i < in_; ++i) middle += static_cast<double>(row[i]) * x[i];
          const double b =
              std::abs(b_[adapter].values[static_cast<size_t>(o * a.rows + r)]) * kScale;
          bound +=
              b * (rounded * std::abs(middle) + 8 * kEps32 * NormOf(row, in_) * NormOf(x, in_));
        }
        tolerance[static_cast<size_t>(t * (out_ + 1) + o + 1)] = bound;
      }
    }
    return tolerance;
  }

 private:
  Backend& backend_;
  const int64_t in_;
  const int64_t out_;
  const int64_t rows_;
  const std::vector<float> x_values_;
  ActivationBuffer x_;
  const std::vector<float> y_values_;
  FloatBuffer y_;
  std::vector<StoredWeight> a_;
  std::vector<StoredWeight> b_;
  std::vector<std::unique_ptr<PackedDelta>> packed_;
  std::vector<DeltaSegment> segments_;
};

}  // namespace

OpCase GemmCase(const GemmShape& shape) {
  OpCase out;
  out.name = absl::StrFormat("gemm_%s%s%s/rows:%d/in:%d/out:%d", InfoOf(shape.dtype).name,
                             shape.bias ? "_bias" : "", shape.accumulate ? "_accumulate" : "",
                             shape.rows, shape.in, shape.out);
  out.flops = 2 * static_cast<double>(shape.rows * shape.in * shape.out);
  out.bytes = static_cast<double>(shape.out * RowBytes(shape.dtype, shape.in) +
                                  shape.rows * (2 * shape.in + 4 * shape.out));
  out.make = [shape](Backend& backend) { return std::make_unique<GemmRun>(backend, shape); };
  return out;
}

OpCase ProductOfRowsCase(const GemmShape& shape, int64_t first_row) {
  OpCase out;
  out.name = absl::StrFormat("product_of_rows_%s/rows:%d/in:%d/out:%d/first:%d",
                             InfoOf(shape.dtype).name, shape.rows, shape.in, shape.out, first_row);
  out.flops = 2 * static_cast<double>(shape.rows * shape.in * shape.out);
  out.bytes = static_cast<double>(shape.out * RowBytes(shape.dtype, shape.in) +
                                  4 * shape.rows * (shape.in + shape.out));
  out.make = [=](Backend& backend) {
    return std::make_unique<ProductOfRowsRun>(backend, shape, first_row);
  };
  return out;
}

OpCase EmbedCase(DType dtype, int64_t rows, int64_t cols) {
  OpCase out;
  out.name = absl::StrFormat("embed_%s/rows:%d/cols:%d", InfoOf(dtype).name, rows, cols);
  out.bytes = 2 * static_cast<double>(rows * (RowBytes(dtype, cols) + 4 * cols));
  out.make = [=](Backend& backend) {
    return std::make_unique<EmbedRun>(backend, dtype, rows, cols);
  };
  return out;
}

OpCase LowRankCase(DType dtype, std::vector<int64_t> ranks, int64_t in, int64_t out_cols) {
  OpCase out;
  out.name = absl::StrFormat("low_rank_%s/adapters:%d/rank:%d/in:%d/out:%d", InfoOf(dtype).name,
                             ranks.size(), ranks.back(), in, out_cols);
  for (int64_t rank : ranks) {
    out.flops += 2 * static_cast<double>(kRowsPerAdapter * rank * (in + out_cols));
    out.bytes += static_cast<double>(RowBytes(dtype, rank * (in + out_cols)));
  }
  out.make = [=](Backend& backend) {
    return std::make_unique<LowRankRun>(backend, dtype, ranks, in, out_cols);
  };
  return out;
}

}  // namespace polyad::test
