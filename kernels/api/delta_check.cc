#include "kernels/api/delta_check.h"

#include <string>
#include <vector>

#include "absl/strings/str_format.h"

namespace polyad {
namespace {

absl::Status Expect(bool holds, const char* op, const char* rule) {
  if (holds) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("%s: expected %s", op, rule));
}

template <typename T>
int64_t Size(std::span<const T> values) {
  return static_cast<int64_t>(values.size());
}

bool EmptyOr(std::span<const float> values, int64_t size) {
  return values.empty() || Size(values) == size;
}

absl::Status CheckMatrix(const char* op, const TensorView& matrix) {
  if (matrix.rows < 1 || matrix.cols < 1 || matrix.data == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: expected a matrix, got [%d, %d]", op, matrix.rows, matrix.cols));
  }
  if (matrix.dtype != DType::kF32 && matrix.dtype != DType::kF16 && matrix.dtype != DType::kBF16) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: expected f32, f16 or bf16, got %s", op,
                                                      std::string(InfoOf(matrix.dtype).name)));
  }
  return absl::OkStatus();
}

// Ascending and distinct, in [0, end).
bool IsIndexList(std::span<const int32_t> values, int64_t end) {
  int32_t last = -1;
  bool ascending = true;
  for (const int32_t value : values) {
    ascending &= value > last;
    last = value;
  }
  return ascending && last < end;
}

struct Checker {
  absl::Status operator()(const LowRank& op) const {
    constexpr char kName[] = "low rank";
    if (absl::Status status = CheckMatrix(kName, op.a); !status.ok()) return status;
    if (absl::Status status = CheckMatrix(kName, op.b); !status.ok()) return status;
    if (op.a.rows != op.b.cols) {
      return absl::InvalidArgumentError(
          absl::StrFormat("low rank: A is [rank, in] and B is [out, rank], got A [%d, %d], B "
                          "[%d, %d]",
                          op.a.rows, op.a.cols, op.b.rows, op.b.cols));
    }
    return Expect(EmptyOr(op.inner, op.a.rows) && EmptyOr(op.outer, op.b.rows), kName,
                  "vectors of rank and out");
  }
  absl::Status operator()(const Dense& op) const { return CheckMatrix("dense", op.delta); }
  absl::Status operator()(const DenseRows& op) const {
    constexpr char kName[] = "dense rows";
    if (absl::Status status = CheckMatrix(kName, op.values); !status.ok()) return status;
    return Expect(Size(op.rows) == op.values.rows && IsIndexList(op.rows, op.out), kName,
                  "one ascending row index below out per row of values");
  }
  absl::Status operator()(const Sparse& op) const {
    constexpr char kName[] = "sparse";
    const int64_t nnz = Size(op.values);
    if (op.row_begin.size() < 2 || op.row_begin.front() != 0 || op.row_begin.back() != nnz ||
        Size(op.columns) != nnz || op.in < 1) {
      return Expect(false, kName, "row_begin from 0 to nnz and one column per value");
    }
    for (size_t row = 0; row + 1 < op.row_begin.size(); ++row) {
      const int32_t begin = op.row_begin[row];
      const int32_t end = op.row_begin[row + 1];
      if (begin > end || end > nnz) return Expect(false, kName, "ascending row_begin");
      const auto columns =
          op.columns.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
      if (!IsIndexList(columns, op.in)) {
        return Expect(false, kName, "ascending columns below in");
      }
    }
    return absl::OkStatus();
  }
  absl::Status operator()(const SignBits& op) const {
    constexpr char kName[] = "sign bits";
    if (op.out < 1 || op.in < 1 || op.groups < 1) return Expect(false, kName, "a shape");
    const int64_t words = (op.in + 31) / 32;
    if (Size(op.bits) != op.out * words) return Expect(false, kName, "out * ceil(in / 32) words");
    if (op.groups > 1) {
      return Expect(op.in % (op.groups * 32) == 0 && Size(op.scale) == op.out * op.groups, kName,
                    "groups of a multiple of 32 inputs and a scale for each row and group");
    }
    return Expect(op.scale.size() == 1 || Size(op.scale) == op.out, kName, "one scale or out");
  }
  absl::Status operator()(const Kronecker& op) const {
    if (absl::Status status = CheckMatrix("kronecker", op.c); !status.ok()) return status;
    return CheckMatrix("kronecker", op.d);
  }
  absl::Status operator()(const Bias& op) const {
    return Expect(!op.values.empty(), "bias", "values");
  }
  absl::Status operator()(const Bottleneck& op) const {
    constexpr char kName[] = "bottleneck";
    if (absl::Status status = CheckMatrix(kName, op.down); !status.ok()) return status;
    if (absl::Status status = CheckMatrix(kName, op.up); !status.ok()) return status;
    if (op.down.rows != op.up.cols) {
      return absl::InvalidArgumentError(
          absl::StrFormat("bottleneck: down is [width, in] and up is [out, width], got [%d, %d] "
                          "and [%d, %d]",
                          op.down.rows, op.down.cols, op.up.rows, op.up.cols));
    }
    return Expect(EmptyOr(op.down_bias, op.down.rows) && EmptyOr(op.up_bias, op.up.rows) &&
                      (op.scale.size() <= 1 || Size(op.scale) == op.up.rows) &&
                      EmptyOr(op.norm.weight, op.down.cols) &&
                      (op.norm.bias.empty() || op.norm.bias.size() == op.norm.weight.size()),
                  kName, "vectors of width, in and out");
  }
  absl::Status operator()(const InputScale& op) const {
    return Expect(!op.values.empty(), "input scale", "values");
  }
  absl::Status operator()(const BlockRotation& op) const {
    constexpr char kName[] = "block rotation";
    const int64_t square = op.size * op.size;
    if (op.size < 1 || op.in < op.size || op.in % op.size != 0 ||
        (Size(op.blocks) != square && Size(op.blocks) != op.in * op.size)) {
      return Expect(false, kName, "in / size blocks, or one, of size x size");
    }
    if (op.order.empty()) return absl::OkStatus();
    std::vector<bool> seen(static_cast<size_t>(op.in), false);
    for (const int32_t index : op.order) {
      if (index < 0 || index >= op.in || seen[static_cast<size_t>(index)]) {
        return Expect(false, kName, "a permutation of the inputs");
      }
      seen[static_cast<size_t>(index)] = true;
    }
    return Expect(Size(op.order) == op.in, kName, "a permutation of the inputs");
  }
  absl::Status operator()(const OutputScale& op) const {
    return Expect(!op.values.empty(), "output scale", "values");
  }
  absl::Status operator()(const PairRotation& op) const {
    const int64_t out = Size(op.f);
    return Expect(
        out > 0 && Size(op.g) == out && op.group > 0 && op.group % 2 == 0 && out % op.group == 0,
        "pair rotation", "f and g of out, in even groups");
  }
  absl::Status operator()(const EmbeddingRows& op) const {
    constexpr char kName[] = "embedding rows";
    if (absl::Status status = CheckMatrix(kName, op.rows); !status.ok()) return status;
    return Expect(Size(op.ids) == op.rows.rows && IsIndexList(op.ids, int64_t{1} << 31), kName,
                  "one ascending token id per row");
  }
  absl::Status operator()(const EmbeddingLowRank& op) const {
    constexpr char kName[] = "embedding low rank";
    if (absl::Status status = CheckMatrix(kName, op.a); !status.ok()) return status;
    if (absl::Status status = CheckMatrix(kName, op.b); !status.ok()) return status;
    return Expect(op.a.rows == op.b.cols && EmptyOr(op.column_scale, op.b.rows), kName,
                  "A [rank, vocab], B [hidden, rank] and a scale per column");
  }
};

struct Shape {
  DeltaShape operator()(const LowRank& op) const { return {op.a.cols, op.b.rows}; }
  DeltaShape operator()(const Dense& op) const { return {op.delta.cols, op.delta.rows}; }
  DeltaShape operator()(const DenseRows& op) const { return {op.values.cols, op.out}; }
  DeltaShape operator()(const Sparse& op) const { return {op.in, Size(op.row_begin) - 1}; }
  DeltaShape operator()(const SignBits& op) const { return {op.in, op.out}; }
  DeltaShape operator()(const Kronecker& op) const {
    return {op.c.cols * op.d.cols, op.c.rows * op.d.rows};
  }
  DeltaShape operator()(const Bias& op) const { return {0, Size(op.values)}; }
  DeltaShape operator()(const Bottleneck& op) const { return {op.down.cols, op.up.rows}; }
  DeltaShape operator()(const InputScale& op) const { return {Size(op.values), Size(op.values)}; }
  DeltaShape operator()(const BlockRotation& op) const { return {op.in, op.in}; }
  DeltaShape operator()(const OutputScale& op) const { return {0, Size(op.values)}; }
  DeltaShape operator()(const PairRotation& op) const { return {0, Size(op.f)}; }
  DeltaShape operator()(const EmbeddingRows& op) const { return {0, op.rows.cols}; }
  DeltaShape operator()(const EmbeddingLowRank& op) const { return {0, op.b.rows}; }
};

struct MultiplyAdds {
  int64_t operator()(const LowRank& op) const { return op.a.rows * (op.a.cols + op.b.rows); }
  int64_t operator()(const Dense& op) const { return op.delta.rows * op.delta.cols; }
  int64_t operator()(const DenseRows& op) const { return op.values.rows * op.values.cols; }
  int64_t operator()(const Sparse& op) const { return Size(op.values); }
  int64_t operator()(const SignBits& op) const { return op.out * op.in; }
  int64_t operator()(const Kronecker& op) const {
    return op.c.rows * op.c.cols * op.d.cols + op.c.rows * op.d.rows * op.d.cols;
  }
  int64_t operator()(const Bias& op) const { return Size(op.values); }
  int64_t operator()(const Bottleneck& op) const {
    return op.down.rows * (op.down.cols + op.up.rows);
  }
  int64_t operator()(const InputScale& op) const { return Size(op.values); }
  int64_t operator()(const BlockRotation& op) const { return op.in * op.size; }
  int64_t operator()(const OutputScale& op) const { return Size(op.values); }
  int64_t operator()(const PairRotation& op) const { return 2 * Size(op.f); }
  int64_t operator()(const EmbeddingRows&) const { return 0; }
  int64_t operator()(const EmbeddingLowRank& op) const { return op.b.rows * op.b.cols; }
};

struct Name {
  const char* operator()(const LowRank&) const { return "LowRank"; }
  const char* operator()(const Dense&) const { return "Dense"; }
  const char* operator()(const DenseRows&) const { return "DenseRows"; }
  const char* operator()(const Sparse&) const { return "Sparse"; }
  const char* operator()(const SignBits&) const { return "SignBits"; }
  const char* operator()(const Kronecker&) const { return "Kronecker"; }
  const char* operator()(const Bias&) const { return "Bias"; }
  const char* operator()(const Bottleneck&) const { return "Bottleneck"; }
  const char* operator()(const InputScale&) const { return "InputScale"; }
  const char* operator()(const BlockRotation&) const { return "BlockRotation"; }
  const char* operator()(const OutputScale&) const { return "OutputScale"; }
  const char* operator()(const PairRotation&) const { return "PairRotation"; }
  const char* operator()(const EmbeddingRows&) const { return "EmbeddingRows"; }
  const char* operator()(const EmbeddingLowRank&) const { return "EmbeddingLowRank"; }
};

}  // namespace

absl::Status CheckDeltaOp(const DeltaOp& op) { return std::visit(Checker{}, op); }
DeltaShape ShapeOf(const DeltaOp& op) { return std::visit(Shape{}, op); }
int64_t FlopsPerToken(const DeltaOp& op) { return 2 * std::visit(MultiplyAdds{}, op); }
const char* NameOf(const DeltaOp& op) { return std::visit(Name{}, op); }

}  // namespace polyad
