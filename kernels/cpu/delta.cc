#include "kernels/cpu/delta.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/api/check.h"
#include "kernels/cpu/gemm_inputs.h"
#include "kernels/cpu/number_format.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/packed_memory.h"
#include "kernels/cpu/scratch.h"

namespace polyad::cpu {
namespace {

constexpr int64_t kTasksPerThread = 4;
// Under this much work (weight bytes and row bytes) two threads gain less than their fork-join
// costs (2-5 us).
constexpr int64_t kSerialCost = 64 * 1024;
constexpr int64_t kRowsPerPass = 64;  // bounds the middle's scratch; whole tiles of 16 rows
constexpr int64_t kCutUnit = 32;      // long segments are cut between pairs of tiles

class CpuLowRank final : public PackedDelta {
 public:
  CpuLowRank(WeightFormat format, const LowRank& op, const GemmKernels& kernels)
      : format_(format), rank_(op.a.rows), in_(op.a.cols), out_(op.b.rows), kernels_(&kernels) {}

  DeltaCost cost() const override { return {a_bytes() + b_bytes(), 2 * rank_ * (in_ + out_)}; }

  WeightFormat format() const { return format_; }
  int64_t rank() const { return rank_; }
  int64_t in() const { return in_; }
  int64_t out() const { return out_; }
  const GemmKernels& kernels() const { return *kernels_; }
  int64_t a_bytes() const { return (MatrixBytes(format_, in_, rank_) + 63) / 64 * 64; }
  int64_t b_bytes() const { return MatrixBytes(format_, rank_, out_); }
  const char* a() const { return memory_.get(); }
  const char* b() const { return memory_.get() + a_bytes(); }
  void set_memory(std::shared_ptr<char> memory) { memory_ = std::move(memory); }

 private:
  WeightFormat format_;
  int64_t rank_;
  int64_t in_;
  int64_t out_;
  const GemmKernels* kernels_;
  std::shared_ptr<char> memory_;  // A's panels, then B's
};

const CpuLowRank& OpOf(const DeltaSegment& segment) {
  return static_cast<const CpuLowRank&>(*segment.op);
}

absl::Status CheckLowRank(const LowRank& op) {
  if (op.a.rows < 1 || op.a.cols < 1 || op.b.rows < 1 || op.b.cols != op.a.rows) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "low rank: A is [rank, in] and B is [out, rank], got A [%d, %d], B [%d, %d]", op.a.rows,
        op.a.cols, op.b.rows, op.b.cols));
  }
  for (const TensorView* tensor : {&op.a, &op.b}) {
    const DType dtype = tensor->dtype;
    if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "low rank: expected f32, f16 or bf16 factors, got %s", std::string(InfoOf(dtype).name)));
    }
  }
  return absl::OkStatus();
}

void PackFactor(const TensorView& tensor, float scale, WeightFormat format, char* to) {
  std::vector<float> rows(static_cast<size_t>(std::min(tensor.rows, kPanelColumns) * tensor.cols));
  for (int64_t first = 0; first < tensor.rows; first += kPanelColumns) {
    const int64_t columns = std::min(kPanelColumns, tensor.rows - first);
    for (int64_t column = 0; column < columns; ++column) {
      DecodeRow(tensor, first + column, rows.data() + column * tensor.cols);
    }
    for (int64_t i = 0; i < columns * tensor.cols; ++i) rows[static_cast<size_t>(i)] *= scale;
    WritePanel(format, rows.data(), tensor.cols, columns, to);
    to += PanelBytes(format, tensor.cols, kPanelColumns);
  }
}

// y rows += B (A x rows) for rows [begin, end) of one segment.
void ApplyRows(const DeltaSegment& segment, const PanelTask& inputs, FloatRows y, int64_t begin,
               int64_t end) {
  const CpuLowRank& op = OpOf(segment);
  const bool half = op.format() == WeightFormat::kBF16 && !op.kernels().bf16_takes_f32_rows;
  const int64_t unit = half ? op.kernels().bf16_depth_multiple : 2;
  const int64_t padded = (op.rank() + unit - 1) / unit * unit;
  char* memory = WorkerScratch().Reserve(kRowsPerPass * padded * 6);
  auto* middle = reinterpret_cast<float*>(memory);
  auto* middle16 = reinterpret_cast<uint16_t*>(memory + kRowsPerPass * padded * 4);
  const PanelKernel kernel = KernelOf(op.kernels(), op.format());

  PanelTask shrink = RowsOf(inputs, begin, end);
  shrink.panels = op.a();
  shrink.panel_bytes = PanelBytes(op.format(), op.in(), kPanelColumns);
  shrink.columns = op.rank();
  shrink.y = middle;
  shrink.y_stride = padded;
  kernel(shrink);

  PanelTask expand;
  expand.rows = end - begin;
  expand.x = half ? static_cast<const void*>(middle16) : middle;
  expand.x_bytes = half ? 2 : 4;
  expand.x_stride = padded;
  expand.depth = op.rank();
  for (int64_t row = 0; row < expand.rows; ++row) {
    float* from = middle + row * padded;
    std::fill(from + op.rank(), from + padded, 0.0f);
    if (!half) continue;
    for (int64_t r = 0; r < padded; ++r) middle16[row * padded + r] = ToBf16(from[r]);
  }
  expand.panels = op.b();
  expand.panel_bytes = PanelBytes(op.format(), op.rank(), kPanelColumns);
  expand.columns = op.out();
  expand.accumulate = true;
  expand.y = y.Row(begin) + segment.y_column;
  expand.y_stride = y.stride;
  kernel(expand);
}

// Row ends of the tasks: runs of rows of about equal cost, cut where segments begin or between
// their tiles.
std::vector<int64_t> CutRows(std::span<const DeltaSegment> segments, int64_t rows, int threads) {
  std::vector<int64_t> cost(static_cast<size_t>(rows), 0);
  std::vector<char> cut(static_cast<size_t>(rows) + 1, 0);
  int64_t total = 0;
  for (const DeltaSegment& segment : segments) {
    if (segment.row_begin >= segment.row_end) continue;
    const int64_t bytes = OpOf(segment).cost().bytes;
    const int64_t row_cost =
        bytes / 16 + 64;  // a row in a tile costs about what streaming 1/16 of the op does
    for (int64_t row = segment.row_begin; row < segment.row_end; ++row) {
      cost[static_cast<size_t>(row)] += row_cost;
      if ((row - segment.row_begin) % kCutUnit == 0) cut[static_cast<size_t>(row)] = 1;
    }
    cost[static_cast<size_t>(segment.row_begin)] += bytes;
    total += bytes + (segment.row_end - segment.row_begin) * row_cost;
  }
  std::vector<int64_t> ends;
  const int64_t share = total / (threads * kTasksPerThread) + 1;
  if (threads > 1 && total > kSerialCost) {
    int64_t run = 0;
    for (int64_t row = 0; row < rows; ++row) {
      if (run >= share && cut[static_cast<size_t>(row)] != 0) {
        ends.push_back(row);
        run = 0;
      }
      run += cost[static_cast<size_t>(row)];
    }
  }
  ends.push_back(rows);
  return ends;
}

void CheckSegment(const DeltaSegment& segment, ActivationRows x, FloatRows y) {
  KERNEL_CHECK(segment.op != nullptr, "delta: a segment without an op");
  KERNEL_CHECK(
      segment.row_begin >= 0 && segment.row_begin <= segment.row_end && segment.row_end <= x.rows,
      "delta: a segment's rows");
  KERNEL_CHECK(OpOf(segment).in() == x.cols, "delta: an op of another width");
  KERNEL_CHECK(segment.y_column >= 0 && segment.y_column + OpOf(segment).out() <= y.cols,
               "delta: a segment's columns");
}

}  // namespace

absl::StatusOr<std::unique_ptr<PackedDelta>> PackDeltaCpu(const DeltaOp& op, ComputeMode mode,
                                                          Isa isa) {
  const LowRank& low_rank = std::get<LowRank>(op);
  if (absl::Status status = CheckLowRank(low_rank); !status.ok()) return status;
  const WeightFormat format = mode == ComputeMode::kF32 ? WeightFormat::kF32 : WeightFormat::kBF16;
  auto packed = std::make_unique<CpuLowRank>(format, low_rank, KernelsOf(isa));
  absl::StatusOr<std::shared_ptr<char>> memory = AllocatePacked(packed->cost().bytes);
  if (!memory.ok()) return memory.status();
  PackFactor(low_rank.a, 1.0f, format, memory->get());
  PackFactor(low_rank.b, low_rank.scale, format, memory->get() + packed->a_bytes());
  packed->set_memory(*std::move(memory));
  return packed;
}

void ApplyCpu(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y,
              ThreadPool& pool) {
  if (segments.empty()) return;
  KERNEL_CHECK(x.rows == y.rows, "delta: rows");
  for (const DeltaSegment& segment : segments) CheckSegment(segment, x, y);
  PanelTask inputs;
  const CpuLowRank& any = OpOf(segments[0]);
  PrepareInputs(any.format(), any.kernels(), x, pool, &inputs);
  const std::vector<int64_t> ends = CutRows(segments, x.rows, pool.num_threads());
  pool.Run(static_cast<int64_t>(ends.size()), [&](int64_t task, int) {
    const int64_t task_begin = task == 0 ? 0 : ends[static_cast<size_t>(task) - 1];
    const int64_t task_end = ends[static_cast<size_t>(task)];
    for (const DeltaSegment& segment : segments) {
      const int64_t begin = std::max(task_begin, segment.row_begin);
      const int64_t end = std::min(task_end, segment.row_end);
      for (int64_t row = begin; row < end; row += kRowsPerPass) {
        ApplyRows(segment, inputs, y, row, std::min(end, row + kRowsPerPass));
      }
    }
  });
}

}  // namespace polyad::cpu
