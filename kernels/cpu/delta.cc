#include "kernels/cpu/delta.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/api/check.h"
#include "kernels/cpu/gemm_inputs.h"
#include "kernels/cpu/number_format.h"
#include "kernels/cpu/product_ops.h"
#include "kernels/cpu/row_ops.h"

namespace polyad::cpu {
namespace {

constexpr int64_t kTasksPerThread = 4;
// Under this much work (weight bytes and row bytes) two threads gain less than their fork-join
// costs (2-5 us).
constexpr int64_t kSerialCost = 64 * 1024;
constexpr int64_t kCutUnit = 32;  // long segments are cut between pairs of tiles

// Row ends of the tasks: runs of rows of about equal cost, cut where segments begin or between
// their tiles.
std::vector<int64_t> CutRows(std::span<const DeltaSegment> segments, int64_t rows, int threads) {
  std::vector<int64_t> cost(static_cast<size_t>(rows), 0);
  std::vector<char> cut(static_cast<size_t>(rows) + 1, 0);
  int64_t total = 0;
  for (const DeltaSegment& segment : segments) {
    if (segment.row_begin >= segment.row_end) continue;
    const int64_t bytes = SiteOpOf(segment).streamed_bytes();
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

// Calls run(segment, begin, end) for each segment's rows in each task, in the segments' order.
void ForEachRun(std::span<const DeltaSegment> segments, int64_t rows, ThreadPool& pool,
                absl::FunctionRef<void(const DeltaSegment&, int64_t, int64_t)> run) {
  const std::vector<int64_t> ends = CutRows(segments, rows, pool.num_threads());
  pool.Run(static_cast<int64_t>(ends.size()), [&](int64_t task, int) {
    const int64_t task_begin = task == 0 ? 0 : ends[static_cast<size_t>(task) - 1];
    const int64_t task_end = ends[static_cast<size_t>(task)];
    for (const DeltaSegment& segment : segments) {
      const int64_t begin = std::max(task_begin, segment.row_begin);
      const int64_t end = std::min(task_end, segment.row_end);
      if (begin < end) run(segment, begin, end);
    }
  });
}

void CheckSegments(std::span<const DeltaSegment> segments, int64_t rows, int64_t in, int64_t out) {
  for (const DeltaSegment& segment : segments) {
    KERNEL_CHECK(segment.op != nullptr, "delta: a segment without an op");
    KERNEL_CHECK(
        segment.row_begin >= 0 && segment.row_begin <= segment.row_end && segment.row_end <= rows,
        "delta: a segment's rows");
    const DeltaShape& shape = SiteOpOf(segment).shape();
    KERNEL_CHECK(in < 0 || shape.in == 0 || shape.in == in, "delta: an op of another width");
    KERNEL_CHECK(segment.y_column >= 0 && (out < 0 || segment.y_column + shape.out <= out),
                 "delta: a segment's columns");
  }
}

SiteInputs InputsOf(std::span<const DeltaSegment> segments, ActivationRows x, ThreadPool& pool) {
  SiteInputs inputs{x, {}};
  for (const DeltaSegment& segment : segments) {
    const GemmKernels* kernels = SiteOpOf(segment).panel_kernels();
    if (kernels == nullptr) continue;
    const WeightFormat format = x.dtype == DType::kF32 ? WeightFormat::kF32 : WeightFormat::kBF16;
    PrepareInputs(format, *kernels, x, pool, &inputs.panels);
    break;
  }
  return inputs;
}

void StoreRow(const float* from, const ActivationRows& x, int64_t row) {
  auto* to = static_cast<uint16_t*>(x.data) + row * x.stride;
  for (int64_t i = 0; i < x.cols; ++i) to[i] = ToBf16(from[i]);
}

// x[t] = op(x[t]) for a run of rows: transforms in fp32, a bottleneck's sum added to x.
void TransformInputRows(const DeltaSegment& segment, const SiteInputs& inputs, int64_t begin,
                        int64_t end) {
  const ActivationRows& x = inputs.x;
  std::vector<float> rows(static_cast<size_t>((end - begin) * x.cols));
  std::vector<float> scratch;
  for (int64_t row = begin; row < end; ++row) {
    std::copy_n(WideRow(x, row, scratch), x.cols, rows.data() + (row - begin) * x.cols);
  }
  const CpuSiteOp& op = SiteOpOf(segment);
  if (op.adds_to_input()) {
    const FloatRows sums{rows.data() - begin * x.cols, end, x.cols, x.cols};
    op.Add({segment, inputs, sums, begin, end});
  }
  for (int64_t row = begin; row < end; ++row) {
    float* values = rows.data() + (row - begin) * x.cols;
    if (!op.adds_to_input()) op.TransformInputRow(values);
    if (x.dtype == DType::kF32) {
      std::copy_n(values, x.cols, static_cast<float*>(x.data) + row * x.stride);
    } else {
      StoreRow(values, x, row);
    }
  }
}

}  // namespace

const float* WideRow(const ActivationRows& x, int64_t row, std::vector<float>& scratch) {
  if (x.dtype == DType::kF32) return static_cast<const float*>(x.data) + row * x.stride;
  const auto* from = static_cast<const uint16_t*>(x.data) + row * x.stride;
  scratch.resize(static_cast<size_t>(x.cols));
  for (int64_t i = 0; i < x.cols; ++i) scratch[static_cast<size_t>(i)] = FromBf16(from[i]);
  return scratch.data();
}

void CpuSiteOp::Add(const SiteRows&) const { KERNEL_CHECK(false, "delta: not an op that adds"); }
void CpuSiteOp::TransformInputRow(float*) const {
  KERNEL_CHECK(false, "delta: not an op on inputs");
}
void CpuSiteOp::TransformOutputRow(float*) const {
  KERNEL_CHECK(false, "delta: not an op on outputs");
}
void CpuSiteOp::TransformEmbeddingRow(int32_t, float*) const {
  KERNEL_CHECK(false, "delta: not an op on embeddings");
}

absl::StatusOr<std::unique_ptr<PackedDelta>> PackDeltaCpu(const DeltaOp& op, ComputeMode mode,
                                                          Isa isa, PackShare& share) {
  if (absl::Status status = CheckDeltaOp(op); !status.ok()) return status;
  const SitePacking packing{mode, KernelsOf(isa), share};
  absl::StatusOr<std::unique_ptr<CpuSiteOp>> packed =
      std::visit([&packing](const auto& kind) { return PackOp(kind, packing); }, op);
  if (!packed.ok()) return packed.status();
  return std::unique_ptr<PackedDelta>(*std::move(packed));
}

void ApplyCpu(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y,
              ThreadPool& pool) {
  if (segments.empty()) return;
  KERNEL_CHECK(x.rows == y.rows, "delta: rows");
  CheckSegments(segments, x.rows, x.cols, y.cols);
  const SiteInputs inputs = InputsOf(segments, x, pool);
  ForEachRun(segments, x.rows, pool, [&](const DeltaSegment& segment, int64_t begin, int64_t end) {
    SiteOpOf(segment).Add({segment, inputs, y, begin, end});
  });
}

void TransformInputCpu(std::span<const DeltaSegment> segments, ActivationRows x, ThreadPool& pool) {
  CheckSegments(segments, x.rows, x.cols, -1);
  // One at a time: an op reads what the one before it wrote.
  for (const DeltaSegment& segment : segments) {
    const std::span<const DeltaSegment> one(&segment, 1);
    const SiteInputs inputs = InputsOf(one, x, pool);
    ForEachRun(one, x.rows, pool, [&](const DeltaSegment&, int64_t begin, int64_t end) {
      TransformInputRows(segment, inputs, begin, end);
    });
  }
}

void TransformOutputCpu(std::span<const DeltaSegment> segments, FloatRows y, ThreadPool& pool) {
  CheckSegments(segments, y.rows, -1, y.cols);
  ForEachRun(segments, y.rows, pool, [&](const DeltaSegment& segment, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      SiteOpOf(segment).TransformOutputRow(y.Row(row) + segment.y_column);
    }
  });
}

void TransformEmbeddingCpu(std::span<const DeltaSegment> segments, std::span<const int32_t> ids,
                           FloatRows rows, ThreadPool& pool) {
  CheckSegments(segments, rows.rows, -1, rows.cols);
  ForEachRun(
      segments, rows.rows, pool, [&](const DeltaSegment& segment, int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          SiteOpOf(segment).TransformEmbeddingRow(ids[static_cast<size_t>(row)], rows.Row(row));
        }
      });
}

}  // namespace polyad::cpu
