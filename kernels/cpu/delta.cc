#include "kernels/cpu/delta.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/api/check.h"
#include "kernels/cpu/choose_row_kernels.h"
#include "kernels/cpu/gemm_inputs.h"
#include "kernels/cpu/product_ops.h"
#include "kernels/cpu/row_ops.h"
#include "kernels/cpu/scratch.h"

namespace polyad::cpu {
namespace {

constexpr int64_t kUnitsPerThread = 16;  // fine enough that no thread waits long for the last one
// What a thread fetches ahead across its ops, into L2: 4 to 32 KiB do equally well.
constexpr int64_t kFetchDistance = 16 * 1024;
// Under this much work (weight bytes and row bytes) two threads gain less than their fork-join
// costs (2-5 us).
constexpr int64_t kSerialCost = 64 * 1024;
constexpr int64_t kCutUnit = 32;  // long segments are cut between pairs of tiles

// Row ends of the units of work: runs of rows of about equal cost, cut where segments begin or
// between their tiles.
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
  const int64_t share = total / (threads * kUnitsPerThread) + 1;
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

// One op on rows [begin, end) of its segment, or a slice of its outputs.
struct Item {
  const DeltaSegment* segment = nullptr;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t slice = 0;
  int64_t slices = 1;
  size_t first_read = 0;
};

// Into how many slices of outputs the units of so few runs of rows are divided: 1 where an op does
// not divide its outputs. No more than give every thread its part: each slice prepares the row
// anew.
int64_t SlicesOf(std::span<const DeltaSegment> segments, size_t num_runs, int threads) {
  if (threads == 1 || static_cast<int64_t>(num_runs) >= 2 * threads) return 1;
  int64_t bytes = 0;
  for (const DeltaSegment& segment : segments) {
    if (segment.row_begin >= segment.row_end) continue;
    if (!SiteOpOf(segment).divides_outputs()) return 1;
    bytes += SiteOpOf(segment).streamed_bytes() * (segment.row_end - segment.row_begin);
  }
  return bytes <= kSerialCost / 2 ? 1 : threads;
}

// A call's ops as units of work: runs of rows of about equal cost, or slices of their outputs. A
// unit has all items of its rows, in the order of the segments.
struct Plan {
  std::vector<Item> items;
  std::vector<MemoryRange> reads;  // of all items, in order
  std::vector<size_t> unit_ends;   // in items
};

// Into the engine thread's plan, whose memory is reused.
const Plan& PlanOf(std::span<const DeltaSegment> segments, int64_t rows, int threads) {
  static thread_local Plan plan;
  static thread_local std::vector<std::pair<size_t, Item>> found;  // with their units
  const std::vector<int64_t> ends = CutRows(segments, rows, threads);
  const int64_t slices = SlicesOf(segments, ends.size(), threads);
  found.clear();
  plan.unit_ends.assign(ends.size() * static_cast<size_t>(slices), 0);
  for (const DeltaSegment& segment : segments) {
    int64_t begin = segment.row_begin;
    auto run =
        static_cast<size_t>(std::upper_bound(ends.begin(), ends.end(), begin) - ends.begin());
    for (; begin < segment.row_end; begin = ends[run++]) {
      for (int64_t slice = 0; slice < slices; ++slice) {
        const size_t unit = run * static_cast<size_t>(slices) + static_cast<size_t>(slice);
        const int64_t end = std::min(segment.row_end, ends[run]);
        found.push_back({unit, {&segment, begin, end, slice, slices, 0}});
        ++plan.unit_ends[unit];
      }
    }
  }
  size_t count = 0;
  for (size_t& end : plan.unit_ends) count += std::exchange(end, count);  // now where units begin
  plan.items.resize(count);
  for (const auto& [unit, item] : found) plan.items[plan.unit_ends[unit]++] = item;
  plan.reads.clear();
  for (Item& item : plan.items) {
    item.first_read = plan.reads.size();
    for (const MemoryRange& read : SiteOpOf(*item.segment).reads()) plan.reads.push_back(read);
  }
  return plan;
}

// A position kFetchDistance behind the beginning of reads[first].
FetchAhead FetchFrom(std::span<const MemoryRange> reads, size_t first) {
  int64_t left = kFetchDistance;
  while (first < reads.size() && reads[first].end - reads[first].begin <= left) {
    left -= reads[first].end - reads[first].begin;
    ++first;
  }
  if (first == reads.size()) return {};
  return {reads[first].begin + left, reads[first].end, reads.data() + first + 1,
          static_cast<int64_t>(reads.size() - first - 1)};
}

// One thread's way through its share of the units, and then what is left of the others' shares.
class Shares {
 public:
  Shares(const Plan& plan, int threads)
      : plan_(plan), threads_(static_cast<size_t>(threads)), taken_(threads_) {}

  // The unit to do next, or the number of units.
  size_t Take(size_t worker) {
    for (size_t i = 0; i < threads_; ++i) {
      const size_t owner = (worker + i) % threads_;
      const size_t unit =
          Begin(owner) + taken_[owner].count.fetch_add(1, std::memory_order_relaxed);
      if (unit < Begin(owner + 1)) return unit;
    }
    return plan_.unit_ends.size();
  }
  // Where the reads end of the share that `unit` is in.
  size_t EndOfReads(size_t unit) const {
    size_t owner = 0;
    while (Begin(owner + 1) <= unit) ++owner;
    const size_t end = plan_.unit_ends[Begin(owner + 1) - 1];
    return end == plan_.items.size() ? plan_.reads.size() : plan_.items[end].first_read;
  }

 private:
  struct alignas(64) Count {
    std::atomic<size_t> count{0};
  };
  size_t Begin(size_t owner) const { return plan_.unit_ends.size() * owner / threads_; }

  const Plan& plan_;
  size_t threads_;
  std::vector<Count> taken_;
};

using RunItem = absl::FunctionRef<void(const Item&, FetchAhead*)>;

// The op's own members, which are cold as its panels are.
void FetchOp(const CpuSiteOp& op) {
  constexpr int64_t kOpBytes = 320;  // about what an op of panels is
  for (int64_t line = 64; line < kOpBytes; line += 64) {
    __builtin_prefetch(reinterpret_cast<const char*>(&op) + line);
  }
}

void DoUnit(const Plan& plan, size_t unit, size_t end_of_reads, RunItem run) {
  const std::span<const MemoryRange> reads(plan.reads.data(), end_of_reads);
  for (size_t i = unit == 0 ? 0 : plan.unit_ends[unit - 1]; i < plan.unit_ends[unit]; ++i) {
    const Item& item = plan.items[i];
    if (i + 2 < plan.items.size()) FetchOp(SiteOpOf(*plan.items[i + 2].segment));
    FetchAhead ahead = FetchFrom(reads, item.first_read);
    run(item, ahead.at == nullptr || item.slices > 1 ? nullptr : &ahead);
  }
}

void DoUnits(const Plan& plan, Shares& shares, size_t worker, RunItem run) {
  const size_t units = plan.unit_ends.size();
  for (size_t unit = shares.Take(worker); unit < units; unit = shares.Take(worker)) {
    DoUnit(plan, unit, shares.EndOfReads(unit), run);
  }
}

// Calls run(item, ahead) for the items of each unit, in the segments' order.
void ForEachRun(std::span<const DeltaSegment> segments, int64_t rows, ThreadPool& pool,
                RunItem run) {
  const Plan& plan = PlanOf(segments, rows, pool.num_threads());
  if (plan.unit_ends.size() == 1) return DoUnit(plan, 0, plan.reads.size(), run);
  Shares shares(plan, pool.num_threads());
  pool.Run(pool.num_threads(),
           [&](int64_t, int worker) { DoUnits(plan, shares, static_cast<size_t>(worker), run); });
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

void AddItem(const Item& item, const SiteInputs& inputs, FloatRows y, FetchAhead* ahead) {
  const DeltaSegment& segment = *item.segment;
  SiteOpOf(segment).Add({segment, inputs, y, item.begin, item.end, ahead, item.slice, item.slices});
}

void WidenRows(const SiteKernels& kernels, const ActivationRows& x, FloatRows to) {
  for (int64_t row = 0; row < x.rows; ++row) {
    if (x.dtype == DType::kF32) {
      std::copy_n(static_cast<const float*>(x.data) + row * x.stride, x.cols, to.Row(row));
    } else {
      kernels.widen(static_cast<const uint16_t*>(x.data) + row * x.stride, to.Row(row), x.cols);
    }
  }
}

void StoreRows(const SiteKernels& kernels, FloatRows from, const ActivationRows& x) {
  for (int64_t row = 0; row < x.rows; ++row) {
    if (x.dtype == DType::kF32) {
      std::copy_n(from.Row(row), x.cols, static_cast<float*>(x.data) + row * x.stride);
    } else {
      kernels.narrow(from.Row(row), static_cast<uint16_t*>(x.data) + row * x.stride, x.cols);
    }
  }
}

// x[t] = op(x[t]) for a run of rows: transforms in fp32, a bottleneck's sum added to x.
void TransformInputRows(const DeltaSegment& segment, const SiteInputs& inputs, int64_t begin,
                        int64_t end) {
  const CpuSiteOp& op = SiteOpOf(segment);
  const SiteKernels& kernels = op.row_kernels().site;
  const ActivationRows x = inputs.x.Slice(begin, end);
  auto* memory = reinterpret_cast<float*>(RowScratch().Reserve(x.rows * x.cols * 4));
  const FloatRows rows{memory, x.rows, x.cols, x.cols};
  WidenRows(kernels, x, rows);
  if (op.adds_to_input()) {
    op.Add({segment, inputs, {memory - begin * x.cols, end, x.cols, x.cols}, begin, end});
  } else {
    op.TransformInput(rows);
  }
  StoreRows(kernels, rows, x);
}

}  // namespace

void CpuSiteOp::Add(const SiteRows&) const { KERNEL_CHECK(false, "delta: not an op that adds"); }
void CpuSiteOp::TransformInput(FloatRows) const {
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
  const SitePacking packing{mode, KernelsOf(isa), RowKernelsOf(isa), share};
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
  ForEachRun(segments, x.rows, pool,
             [&](const Item& item, FetchAhead* ahead) { AddItem(item, inputs, y, ahead); });
}

void ApplyAfterCpu(const ProductTasks& product, std::span<const DeltaSegment> segments,
                   const SiteInputs& inputs, FloatRows y, ThreadPool& pool) {
  KERNEL_CHECK(inputs.x.rows == y.rows, "delta: rows");
  CheckSegments(segments, inputs.x.rows, inputs.x.cols, y.cols);
  alignas(64) std::atomic<int64_t> taken{0};
  alignas(64) std::atomic<int64_t> done{0};
  alignas(64) std::atomic<bool> planned{false};
  const Plan* plan = nullptr;
  std::optional<Shares> shares;
  const auto add = [&](const Item& item, FetchAhead* ahead) { AddItem(item, inputs, y, ahead); };
  // No other worker gets past its first task before the plan is made, so the caller has one too.
  pool.Run(pool.num_threads(), [&](int64_t, int worker) {
    if (worker == 0 && plan == nullptr) {
      plan = &PlanOf(segments, inputs.x.rows, pool.num_threads());
      shares.emplace(*plan, pool.num_threads());
      planned.store(true, std::memory_order_release);
    }
    for (int64_t task = taken.fetch_add(1); task < product.count; task = taken.fetch_add(1)) {
      product.run(task);
      done.fetch_add(1, std::memory_order_release);
    }
    ThreadPool::Await([&] {
      return planned.load(std::memory_order_acquire) &&
             done.load(std::memory_order_acquire) == product.count;
    });
    DoUnits(*plan, *shares, static_cast<size_t>(worker), add);
  });
}

bool SharesInputs(std::span<const DeltaSegment> segments, WeightFormat format,
                  const GemmKernels& kernels) {
  for (const DeltaSegment& segment : segments) {
    const GemmKernels* own = SiteOpOf(segment).panel_kernels();
    if (own != nullptr)
      return own == &kernels && (format == WeightFormat::kBF16 || format == WeightFormat::kF32 ||
                                 format == WeightFormat::kGrouped);
  }
  return true;
}

void TransformInputCpu(std::span<const DeltaSegment> segments, ActivationRows x, ThreadPool& pool) {
  CheckSegments(segments, x.rows, x.cols, -1);
  // One at a time: an op reads what the one before it wrote.
  for (const DeltaSegment& segment : segments) {
    const std::span<const DeltaSegment> one(&segment, 1);
    const SiteInputs inputs = InputsOf(one, x, pool);
    ForEachRun(one, x.rows, pool, [&](const Item& item, FetchAhead*) {
      TransformInputRows(segment, inputs, item.begin, item.end);
    });
  }
}

void TransformOutputCpu(std::span<const DeltaSegment> segments, FloatRows y, ThreadPool& pool) {
  CheckSegments(segments, y.rows, -1, y.cols);
  ForEachRun(segments, y.rows, pool, [&](const Item& item, FetchAhead*) {
    const DeltaSegment& segment = *item.segment;
    for (int64_t row = item.begin; row < item.end; ++row) {
      SiteOpOf(segment).TransformOutputRow(y.Row(row) + segment.y_column);
    }
  });
}

void TransformEmbeddingCpu(std::span<const DeltaSegment> segments, std::span<const int32_t> ids,
                           FloatRows rows, ThreadPool& pool) {
  CheckSegments(segments, rows.rows, -1, rows.cols);
  ForEachRun(segments, rows.rows, pool, [&](const Item& item, FetchAhead*) {
    for (int64_t row = item.begin; row < item.end; ++row) {
      SiteOpOf(*item.segment).TransformEmbeddingRow(ids[static_cast<size_t>(row)], rows.Row(row));
    }
  });
}

}  // namespace polyad::cpu
