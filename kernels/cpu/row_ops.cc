#include "kernels/cpu/row_ops.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace polyad::cpu {
namespace {

template <typename T>
std::vector<T> Kept(std::span<const T> values) {
  return {values.begin(), values.end()};
}

std::vector<float> Decoded(const TensorView& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.cols));
  for (int64_t row = 0; row < matrix.rows; ++row) {
    DecodeRow(matrix, row, values.data() + row * matrix.cols);
  }
  return values;
}

template <typename... Vectors>
int64_t BytesOf(const Vectors&... vectors) {
  return static_cast<int64_t>((... + (vectors.size() * sizeof(vectors[0]))));
}

// Calls add(x, weight, y) for each row of fp32.
template <typename AddRow>
void ForEachRow(const SiteRows& rows, AddRow add) {
  std::vector<float> scratch;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    add(WideRow(rows.inputs.x, row, scratch), rows.Weight(row), rows.Y(row));
  }
}

// y[o] += weight sum over the stored (o, i) of value x[i]
class CpuSparse final : public CpuSiteOp {
 public:
  explicit CpuSparse(const Sparse& op)
      : CpuSiteOp(op),
        row_begin_(Kept(op.row_begin)),
        columns_(Kept(op.columns)),
        values_(Kept(op.values)) {
    const int64_t bytes = BytesOf(row_begin_, columns_, values_);
    set_bytes(bytes, bytes);
  }

  void Add(const SiteRows& rows) const override {
    ForEachRow(rows, [this](const float* x, float weight, float* y) {
      for (size_t o = 0; o + 1 < row_begin_.size(); ++o) {
        float sum = 0.0f;
        for (auto n = static_cast<size_t>(row_begin_[o]);
             n < static_cast<size_t>(row_begin_[o + 1]); ++n) {
          sum += values_[n] * x[columns_[n]];
        }
        y[o] += weight * sum;
      }
    });
  }

 private:
  std::vector<int32_t> row_begin_;
  std::vector<int32_t> columns_;
  std::vector<float> values_;
};

// y[o] += weight sum_g scale[o, g] sum_{i in g} +-x[i]
class CpuSignBits final : public CpuSiteOp {
 public:
  explicit CpuSignBits(const SignBits& op)
      : CpuSiteOp(op), bits_(Kept(op.bits)), scale_(Kept(op.scale)), groups_(op.groups) {
    const int64_t bytes = BytesOf(bits_, scale_);
    set_bytes(bytes, bytes);
  }

  void Add(const SiteRows& rows) const override {
    const auto words = static_cast<size_t>((shape().in + 31) / 32);
    const size_t group_words =
        (words + static_cast<size_t>(groups_) - 1) / static_cast<size_t>(groups_);
    ForEachRow(rows, [&](const float* x, float weight, float* y) {
      for (size_t o = 0; o < static_cast<size_t>(shape().out); ++o) {
        const uint32_t* bits = bits_.data() + o * words;
        float sum = 0.0f;
        for (size_t g = 0; g < static_cast<size_t>(groups_); ++g) {
          const float scale = scale_[scale_.size() == 1 ? 0 : o * static_cast<size_t>(groups_) + g];
          sum +=
              scale * SumOfWords(bits, x, g * group_words, std::min((g + 1) * group_words, words));
        }
        y[o] += weight * sum;
      }
    });
  }

 private:
  float SumOfWords(const uint32_t* bits, const float* x, size_t begin, size_t end) const {
    float sum = 0.0f;
    for (size_t word = begin; word < end; ++word) {
      const size_t first = word * 32;
      const size_t count = std::min<size_t>(32, static_cast<size_t>(shape().in) - first);
      for (size_t i = 0; i < count; ++i) {
        sum += (bits[word] >> i & 1u) != 0 ? x[first + i] : -x[first + i];
      }
    }
    return sum;
  }

  std::vector<uint32_t> bits_;
  std::vector<float> scale_;
  int64_t groups_;
};

// y += weight scale vec(C X D')
class CpuKronecker final : public CpuSiteOp {
 public:
  explicit CpuKronecker(const Kronecker& op)
      : CpuSiteOp(op),
        c_(Decoded(op.c)),
        d_(Decoded(op.d)),
        c_rows_(op.c.rows),
        c_cols_(op.c.cols),
        d_rows_(op.d.rows),
        d_cols_(op.d.cols),
        scale_(op.scale) {
    const int64_t bytes = BytesOf(c_, d_);
    set_bytes(bytes, bytes);
  }

  void Add(const SiteRows& rows) const override {
    std::vector<float> mixed(static_cast<size_t>(d_cols_));
    ForEachRow(rows, [&](const float* x, float weight, float* y) {
      for (int64_t a = 0; a < c_rows_; ++a) {
        std::fill(mixed.begin(), mixed.end(), 0.0f);
        for (int64_t c = 0; c < c_cols_; ++c) {
          const float factor = c_[static_cast<size_t>(a * c_cols_ + c)];
          for (int64_t d = 0; d < d_cols_; ++d)
            mixed[static_cast<size_t>(d)] += factor * x[c * d_cols_ + d];
        }
        for (int64_t b = 0; b < d_rows_; ++b) {
          const float* row = d_.data() + b * d_cols_;
          float sum = 0.0f;
          for (int64_t d = 0; d < d_cols_; ++d) sum += row[d] * mixed[static_cast<size_t>(d)];
          y[a * d_rows_ + b] += weight * scale_ * sum;
        }
      }
    });
  }

 private:
  std::vector<float> c_;
  std::vector<float> d_;
  int64_t c_rows_;
  int64_t c_cols_;
  int64_t d_rows_;
  int64_t d_cols_;
  float scale_;
};

// y += weight b, y = c * y, x = a * x: one vector.
class CpuVector final : public CpuSiteOp {
 public:
  CpuVector(const DeltaOp& op, std::span<const float> values)
      : CpuSiteOp(op), values_(Kept(values)) {
    set_bytes(BytesOf(values_), BytesOf(values_));
  }

  void Add(const SiteRows& rows) const override {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      float* y = rows.Y(row);
      const float weight = rows.Weight(row);
      for (size_t o = 0; o < values_.size(); ++o) y[o] += weight * values_[o];
    }
  }
  void TransformInputRow(float* x) const override { Scale(x); }
  void TransformOutputRow(float* y) const override { Scale(y); }

 private:
  void Scale(float* row) const {
    for (size_t i = 0; i < values_.size(); ++i) row[i] *= values_[i];
  }

  std::vector<float> values_;
};

// u = x[order]; v = u R; x[order] = v
class CpuBlockRotation final : public CpuSiteOp {
 public:
  explicit CpuBlockRotation(const BlockRotation& op)
      : CpuSiteOp(op),
        order_(Kept(op.order)),
        blocks_(Kept(op.blocks)),
        size_(static_cast<size_t>(op.size)) {
    set_bytes(BytesOf(order_, blocks_), BytesOf(order_, blocks_));
  }

  void TransformInputRow(float* x) const override {
    const auto in = static_cast<size_t>(shape().in);
    const bool shared = blocks_.size() == size_ * size_;
    std::vector<float> u(in);
    std::vector<float> v(in, 0.0f);
    for (size_t i = 0; i < in; ++i) u[i] = x[At(i)];
    for (size_t begin = 0; begin < in; begin += size_) {
      const float* block = blocks_.data() + (shared ? 0 : begin * size_);
      for (size_t i = 0; i < size_; ++i) {
        for (size_t j = 0; j < size_; ++j) v[begin + j] += u[begin + i] * block[i * size_ + j];
      }
    }
    for (size_t i = 0; i < in; ++i) x[At(i)] = v[i];
  }

 private:
  size_t At(size_t i) const { return order_.empty() ? i : static_cast<size_t>(order_[i]); }

  std::vector<int32_t> order_;
  std::vector<float> blocks_;
  size_t size_;
};

// y = f * y + g * rot(y)
class CpuPairRotation final : public CpuSiteOp {
 public:
  explicit CpuPairRotation(const PairRotation& op)
      : CpuSiteOp(op), f_(Kept(op.f)), g_(Kept(op.g)), half_(static_cast<size_t>(op.group / 2)) {
    set_bytes(BytesOf(f_, g_), BytesOf(f_, g_));
  }

  void TransformOutputRow(float* y) const override {
    for (size_t begin = 0; begin < f_.size(); begin += 2 * half_) {
      for (size_t i = begin; i < begin + half_; ++i) {
        const float first = y[i];
        const float second = y[i + half_];
        y[i] = f_[i] * first - g_[i] * second;
        y[i + half_] = f_[i + half_] * second + g_[i + half_] * first;
      }
    }
  }

 private:
  std::vector<float> f_;
  std::vector<float> g_;
  size_t half_;
};

// e = rows[n] where ids[n] is the token
class CpuEmbeddingRows final : public CpuSiteOp {
 public:
  explicit CpuEmbeddingRows(const EmbeddingRows& op)
      : CpuSiteOp(op), ids_(Kept(op.ids)), cols_(op.rows.cols), rows_(Decoded(op.rows)) {
    set_bytes(BytesOf(ids_, rows_), cols_ * 4);
  }

  void TransformEmbeddingRow(int32_t token, float* row) const override {
    const auto found = std::lower_bound(ids_.begin(), ids_.end(), token);
    if (found == ids_.end() || *found != token) return;
    std::copy_n(rows_.begin() + (found - ids_.begin()) * cols_, cols_, row);
  }

 private:
  std::vector<int32_t> ids_;
  int64_t cols_;
  std::vector<float> rows_;
};

// e = column_scale * (e + scale B A[:, token])
class CpuEmbeddingLowRank final : public CpuSiteOp {
 public:
  explicit CpuEmbeddingLowRank(const EmbeddingLowRank& op)
      : CpuSiteOp(op),
        rank_(static_cast<size_t>(op.a.rows)),
        vocab_(op.a.cols),
        b_(Decoded(op.b)),
        scale_(op.scale),
        column_scale_(Kept(op.column_scale)) {
    const std::vector<float> a = Decoded(op.a);
    by_token_.resize(a.size());
    for (size_t r = 0; r < rank_; ++r) {
      for (size_t t = 0; t < static_cast<size_t>(vocab_); ++t) {
        by_token_[t * rank_ + r] = a[r * static_cast<size_t>(vocab_) + t];
      }
    }
    set_bytes(BytesOf(by_token_, b_, column_scale_), BytesOf(b_));
  }

  void TransformEmbeddingRow(int32_t token, float* row) const override {
    if (token < 0 || token >= vocab_) return;
    const float* a = by_token_.data() + static_cast<size_t>(token) * rank_;
    for (size_t i = 0; i < static_cast<size_t>(shape().out); ++i) {
      float sum = 0.0f;
      for (size_t r = 0; r < rank_; ++r) sum += b_[i * rank_ + r] * a[r];
      row[i] += scale_ * sum;
      if (!column_scale_.empty()) row[i] *= column_scale_[i];
    }
  }

 private:
  size_t rank_;
  int64_t vocab_;
  std::vector<float> by_token_;  // [vocab, rank]
  std::vector<float> b_;         // [hidden, rank]
  float scale_;
  std::vector<float> column_scale_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Sparse& op, const SitePacking&) {
  return std::make_unique<CpuSparse>(op);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const SignBits& op, const SitePacking&) {
  return std::make_unique<CpuSignBits>(op);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Kronecker& op, const SitePacking&) {
  return std::make_unique<CpuKronecker>(op);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Bias& op, const SitePacking&) {
  return std::make_unique<CpuVector>(op, op.values);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const InputScale& op, const SitePacking&) {
  return std::make_unique<CpuVector>(op, op.values);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const BlockRotation& op, const SitePacking&) {
  return std::make_unique<CpuBlockRotation>(op);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const OutputScale& op, const SitePacking&) {
  return std::make_unique<CpuVector>(op, op.values);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const PairRotation& op, const SitePacking&) {
  return std::make_unique<CpuPairRotation>(op);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const EmbeddingRows& op, const SitePacking&) {
  return std::make_unique<CpuEmbeddingRows>(op);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const EmbeddingLowRank& op, const SitePacking&) {
  return std::make_unique<CpuEmbeddingLowRank>(op);
}

}  // namespace polyad::cpu
