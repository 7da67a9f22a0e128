#include "kernels/cpu/row_ops.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/cpu/scratch.h"
#include "kernels/cpu/sign_layout.h"
#include "kernels/cpu/sparse_layout.h"
#include "kernels/cpu/vector_bytes.h"

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

// Row `row` of x as fp32 in `to`.
void WidenRow(const SiteKernels& kernels, const ActivationRows& x, int64_t row, float* to) {
  if (x.dtype == DType::kF32) {
    std::copy_n(static_cast<const float*>(x.data) + row * x.stride, x.cols, to);
  } else {
    kernels.widen(static_cast<const uint16_t*>(x.data) + row * x.stride, to, x.cols);
  }
}

// Calls run(task) for runs of rows as fp32, zero from their end up to `padded`.
template <typename Run>
void ForEachTask(const SiteRows& rows, const SiteKernels& kernels, int64_t padded, Run run) {
  const ActivationRows& x = rows.inputs.x;
  const bool in_place = x.dtype == DType::kF32 && padded == x.cols;
  float weights[kSiteRows];
  SiteTask task;
  task.in = x.cols;
  task.x_stride = in_place ? x.stride : padded;
  task.y_stride = rows.y.stride;
  task.weights = weights;
  for (int64_t begin = rows.begin; begin < rows.end; begin += kSiteRows) {
    task.rows = std::min(kSiteRows, rows.end - begin);
    task.y = rows.Y(begin);
    for (int64_t row = 0; row < task.rows; ++row) weights[row] = rows.Weight(begin + row);
    if (in_place) {
      task.x = static_cast<const float*>(x.data) + begin * x.stride;
    } else {
      auto* wide = reinterpret_cast<float*>(RowScratch().Reserve(kSiteRows * padded * 4));
      for (int64_t row = 0; row < task.rows; ++row) {
        WidenRow(kernels, x, begin + row, wide + row * padded);
        std::fill(wide + row * padded + x.cols, wide + (row + 1) * padded, 0.0f);
      }
      task.x = wide;
    }
    run(task);
  }
}

// Working memory of the sparse kernels for rows of `in`.
float* TurnedRows(int64_t in) {
  return reinterpret_cast<float*>(WorkerScratch().Reserve(in * kSiteRows * 4));
}

// y[o] += weight sum over the stored (o, i) of value x[i]
class CpuSparse final : public CpuSiteOp {
 public:
  CpuSparse(const Sparse& op, const SitePacking& packing)
      : CpuSiteOp(op, packing), layout_(RowsOf(op), op.in) {
    set_bytes(layout_.bytes());
  }

  void Add(const SiteRows& rows) const override {
    const SparseGroups groups = layout_.view();
    ForEachTask(rows, kernels(), shape().in, [&](const SiteTask& task) {
      kernels().add_sparse(groups, task, TurnedRows(task.in));
    });
  }

 private:
  static std::vector<SparseRow> RowsOf(const Sparse& op) {
    std::vector<SparseRow> rows;
    rows.reserve(op.row_begin.size());
    for (size_t o = 0; o + 1 < op.row_begin.size(); ++o) {
      const auto begin = static_cast<size_t>(op.row_begin[o]);
      const size_t count = static_cast<size_t>(op.row_begin[o + 1]) - begin;
      rows.push_back({static_cast<int32_t>(o), op.columns.subspan(begin, count),
                      op.values.subspan(begin, count)});
    }
    return rows;
  }

  SparseLayout layout_;
};

// y[o] += weight sum_g scale[o, g] sum_{i in g} +-x[i]
class CpuSignBits final : public CpuSiteOp {
 public:
  CpuSignBits(const SignBits& op, SignLayout layout, const SitePacking& packing)
      : CpuSiteOp(op, packing), layout_(std::move(layout)) {
    set_bytes(layout_.bytes());
    add_read(layout_.range());
  }

  bool divides_outputs() const override { return true; }

  void Add(const SiteRows& rows) const override {
    int64_t first = 0;
    const SignPanels signs = layout_.slice(rows.slice, rows.slices, &first);
    if (signs.out == 0) return;
    auto* tables = reinterpret_cast<int32_t*>(WorkerScratch().Reserve(layout_.table_bytes()));
    ForEachTask(rows, kernels(), shape().in, [&](const SiteTask& task) {
      for (int64_t row = 0; row < task.rows; ++row) {
        const SignRow one{task.x + row * task.x_stride, task.weights[row],
                          task.y + row * task.y_stride + first, signs.out,
                          rows.end - rows.begin == 1 ? rows.ahead : nullptr};
        kernels().add_signs(signs, one, tables);
      }
    });
  }

 private:
  SignLayout layout_;
};

// y += weight b, y = c * y, x = a * x: one vector.
class CpuVector final : public CpuSiteOp {
 public:
  CpuVector(const DeltaOp& op, std::span<const float> values, const SitePacking& packing)
      : CpuSiteOp(op, packing), values_(Kept(values)) {
    set_bytes(BytesOf(values_));
  }

  void Add(const SiteRows& rows) const override {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      kernels().add_scaled(rows.Weight(row), values_.data(), rows.Y(row), shape().out);
    }
  }
  void TransformInput(FloatRows x) const override {
    for (int64_t row = 0; row < x.rows; ++row) TransformOutputRow(x.Row(row));
  }
  void TransformOutputRow(float* y) const override {
    kernels().multiply(values_.data(), y, shape().out);
  }

 private:
  std::vector<float> values_;
};

// u = x[order]; v = u R; x[order] = v, block by block: no two of them share a place.
class CpuBlockRotation final : public CpuSiteOp {
 public:
  CpuBlockRotation(const BlockRotation& op, const SitePacking& packing)
      : CpuSiteOp(op, packing),
        order_(Kept(op.order)),
        blocks_(Kept(op.blocks)),
        size_(op.size),
        shared_(static_cast<int64_t>(op.blocks.size()) == op.size * op.size) {
    set_bytes(BytesOf(order_, blocks_));
  }

  void TransformInput(FloatRows x) const override {
    auto* u = reinterpret_cast<float*>(WorkerScratch().Reserve(2 * size_ * 4));
    float* v = u + size_;
    for (int64_t begin = 0; begin < x.cols; begin += size_) {
      CombineTask task;
      task.count = task.stride = task.n = size_;
      task.m = blocks_.data() + (shared_ ? 0 : begin * size_);
      const int32_t* order = order_.empty() ? nullptr : order_.data() + begin;
      for (int64_t row = 0; row < x.rows; ++row) {
        float* values = x.Row(row);
        task.u = order == nullptr ? values + begin : u;
        for (int64_t i = 0; order != nullptr && i < size_; ++i) u[i] = values[order[i]];
        kernels().combine(task, v);
        if (order == nullptr) std::copy_n(v, size_, values + begin);
        for (int64_t i = 0; order != nullptr && i < size_; ++i) values[order[i]] = v[i];
      }
    }
  }

 private:
  std::vector<int32_t> order_;
  std::vector<float> blocks_;
  int64_t size_;
  bool shared_;
};

// The same with blocks under a vector's width: a sparse matrix of `size` entries a row, which keeps
// 16 outputs of several blocks side by side.
class CpuSmallBlockRotation final : public CpuSiteOp {
 public:
  CpuSmallBlockRotation(const BlockRotation& op, const SitePacking& packing)
      : CpuSiteOp(op, packing), layout_(LayoutOf(op)) {
    set_bytes(layout_.bytes());
  }

  void TransformInput(FloatRows x) const override {
    const SparseGroups groups = layout_.view();
    const float ones[kSiteRows] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    for (int64_t begin = 0; begin < x.rows; begin += kSiteRows) {
      const int64_t rows = std::min(kSiteRows, x.rows - begin);
      auto* sums = reinterpret_cast<float*>(SinkScratch().Reserve(rows * x.cols * 4));
      std::fill_n(sums, rows * x.cols, 0.0f);
      const SiteTask task{x.Row(begin), x.stride, x.cols, sums, x.cols, ones, rows};
      kernels().add_sparse(groups, task, TurnedRows(x.cols));
      for (int64_t row = 0; row < rows; ++row) {
        std::copy_n(sums + row * x.cols, x.cols, x.Row(begin + row));
      }
    }
  }

 private:
  // Output order[begin + j] is the sum over i of x[order[begin + i]] R[i, j].
  static SparseLayout LayoutOf(const BlockRotation& op) {
    const auto size = static_cast<size_t>(op.size);
    const auto in = static_cast<size_t>(op.in);
    std::vector<int32_t> order(in);
    std::iota(order.begin(), order.end(), 0);
    if (!op.order.empty()) order.assign(op.order.begin(), op.order.end());
    std::vector<float> columns_of_blocks(in * size);  // R transposed
    std::vector<SparseRow> rows;
    for (size_t at = 0; at < in; ++at) {
      const size_t begin = at / size * size;
      const float* block = op.blocks.data() + (op.blocks.size() == size * size ? 0 : begin * size);
      float* values = columns_of_blocks.data() + at * size;
      for (size_t i = 0; i < size; ++i) values[i] = block[i * size + at - begin];
      rows.push_back({order[at], std::span(order).subspan(begin, size), {values, size}});
    }
    return SparseLayout(std::move(rows), op.in);
  }

  SparseLayout layout_;
};

constexpr int64_t kSmallBlock = 16;

// y = f * y + g * rot(y)
class CpuPairRotation final : public CpuSiteOp {
 public:
  CpuPairRotation(const PairRotation& op, const SitePacking& packing)
      : CpuSiteOp(op, packing), f_(Kept(op.f)), g_(Kept(op.g)), half_(op.group / 2) {
    set_bytes(BytesOf(f_, g_));
  }

  void TransformOutputRow(float* y) const override {
    kernels().rotate_pairs(f_.data(), g_.data(), half_, y, shape().out);
  }

 private:
  std::vector<float> f_;
  std::vector<float> g_;
  int64_t half_;
};

// e = rows[n] where ids[n] is the token
class CpuEmbeddingRows final : public CpuSiteOp {
 public:
  CpuEmbeddingRows(const EmbeddingRows& op, const SitePacking& packing)
      : CpuSiteOp(op, packing), ids_(Kept(op.ids)), cols_(op.rows.cols), rows_(Decoded(op.rows)) {
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
  CpuEmbeddingLowRank(const EmbeddingLowRank& op, const SitePacking& packing)
      : CpuSiteOp(op, packing),
        rank_(op.a.rows),
        vocab_(op.a.cols),
        by_token_(Transposed(op.a)),
        by_rank_(Transposed(op.b)),
        scale_(op.scale),
        column_scale_(Kept(op.column_scale)) {
    set_bytes(BytesOf(by_token_, by_rank_, column_scale_), BytesOf(by_rank_).total());
  }

  void TransformEmbeddingRow(int32_t token, float* row) const override {
    if (token < 0 || token >= vocab_) return;
    const int64_t hidden = shape().out;
    kernels().add_combined(
        {by_token_.data() + token * rank_, rank_, by_rank_.data(), hidden, hidden}, scale_, row);
    if (!column_scale_.empty()) kernels().multiply(column_scale_.data(), row, hidden);
  }

 private:
  static std::vector<float> Transposed(const TensorView& matrix) {
    const std::vector<float> values = Decoded(matrix);
    std::vector<float> turned(values.size());
    for (int64_t row = 0; row < matrix.rows; ++row) {
      for (int64_t col = 0; col < matrix.cols; ++col) {
        turned[static_cast<size_t>(col * matrix.rows + row)] =
            values[static_cast<size_t>(row * matrix.cols + col)];
      }
    }
    return turned;
  }

  int64_t rank_;
  int64_t vocab_;
  std::vector<float> by_token_;  // [vocab, rank]
  std::vector<float> by_rank_;   // [rank, hidden]
  float scale_;
  std::vector<float> column_scale_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Sparse& op, const SitePacking& packing) {
  return std::make_unique<CpuSparse>(op, packing);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const SignBits& op, const SitePacking& packing) {
  absl::StatusOr<SignLayout> layout = SignLayout::Make(op, packing.row_kernels.site.sign_level);
  if (!layout.ok()) return layout.status();
  return std::make_unique<CpuSignBits>(op, *std::move(layout), packing);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Bias& op, const SitePacking& packing) {
  return std::make_unique<CpuVector>(op, op.values, packing);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const InputScale& op,
                                                  const SitePacking& packing) {
  return std::make_unique<CpuVector>(op, op.values, packing);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const BlockRotation& op,
                                                  const SitePacking& packing) {
  if (op.size < kSmallBlock) return std::make_unique<CpuSmallBlockRotation>(op, packing);
  return std::make_unique<CpuBlockRotation>(op, packing);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const OutputScale& op,
                                                  const SitePacking& packing) {
  return std::make_unique<CpuVector>(op, op.values, packing);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const PairRotation& op,
                                                  const SitePacking& packing) {
  return std::make_unique<CpuPairRotation>(op, packing);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const EmbeddingRows& op,
                                                  const SitePacking& packing) {
  return std::make_unique<CpuEmbeddingRows>(op, packing);
}
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const EmbeddingLowRank& op,
                                                  const SitePacking& packing) {
  return std::make_unique<CpuEmbeddingLowRank>(op, packing);
}

}  // namespace polyad::cpu
