#include "tests/kernels/cuda/roof_work.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/kronecker_plan.h"
#include "kernels/cuda/kv_codes.cuh"
#include "kernels/cuda/low_rank_plan.h"
#include "kernels/cuda/product_plan.h"
#include "kernels/cuda/sign_bits.h"
#include "kernels/cuda/sparse_plan.h"

namespace polyad::test {
namespace {

using cuda::DivideUp;
using cuda::RoundUp;
using cuda::WeightFormat;

constexpr int64_t kTile =
    16;  // inputs, outputs, ranks, keys or rows of a matrix instruction's side

constexpr Card kCards[] = {{"A100", 2039e9, 312e12, 19.5e12},
                           {"A10", 600e9, 125e12, 31.2e12},
                           {"L4", 300e9, 121e12, 30.3e12},
                           {"H100", 3350e9, 989e12, 67e12},
                           {"B200", 8000e9, 2250e12, 80e12}};

double Double(int64_t value) { return static_cast<double>(value); }

template <typename Segment>
Segment SegmentOf(int64_t row_begin, int64_t rows) {
  Segment segment;
  segment.row_begin = static_cast<int32_t>(row_begin);
  segment.row_end = static_cast<int32_t>(row_begin + rows);
  return segment;
}

// Of rows of `cols` numbers: bytes and flops for each number, and bytes that are read once.
Work RowWork(const char* kernel, int64_t rows, int64_t cols, double bytes, double flops,
             double once) {
  Work work;
  work.kernel = kernel;
  work.shape = absl::StrFormat("rows %d of %d", rows, cols);
  work.blocks = rows;
  work.bytes = Double(rows * cols) * bytes + once;
  work.flops = Double(rows * cols) * flops;
  work.done = work.flops;
  work.in_tensors = false;
  return work;
}

double KvBytes(const AttentionWorkShape& shape, int64_t stride) {  // of a token and kv head
  if (!IsCoded(shape.format)) return Double(2 * stride * 2);
  return cuda::CodedHeadBytes(shape.format, static_cast<int>(stride)) / Double(kTile);
}

const char* NameOfPages(KvFormat format) {
  if (format == KvFormat::kInt8) return "int8";
  return format == KvFormat::kInt4 ? "int4" : "bf16";
}

const char* NameOfWeights(WeightFormat format) {
  constexpr const char* kNames[] = {"bf16", "int8", "int4", "levels", "float8"};
  return kNames[static_cast<int>(format)];
}

}  // namespace

std::span<const Card> Cards() { return kCards; }

Bound BoundOf(const Work& work, const Card& card) {
  const double memory = work.bytes / card.bytes_per_s;
  const double math = work.done / (work.in_tensors ? card.tensor_flops_per_s : card.flops_per_s);
  return {std::max(memory, math), memory >= math};
}

Work ProductWork(WeightFormat format, int64_t in, int64_t out, int64_t rows, bool has_offsets) {
  auto segment = SegmentOf<cuda::ProductSegment>(0, rows);
  segment.out = static_cast<int32_t>(out);
  segment.weight.format = format;
  segment.weight.in = static_cast<int32_t>(in);
  segment.weight.out = segment.out;
  const cuda::ProductPlan plan = cuda::PlanProducts({&segment, 1}, /*exact=*/false);
  const bool few = plan.launches.at(0).form == cuda::ProductForm::kFew;
  Work work;
  work.kernel = few ? "ProductFew" : "ProductMany";
  work.shape = absl::StrFormat("%s%s [%d, %d], rows %d", NameOfWeights(format),
                               has_offsets ? " with offsets" : "", out, in, rows);
  work.blocks = plan.launches.at(0).num_items;
  const double of_group = format == WeightFormat::kBf16 ? 0 : (has_offsets ? 8.0 : 4.0) / 32;
  work.bytes = Double(out * in) * (CodeBits(format) / 8.0 + of_group) +
               Double(rows) * Double(2 * in + 4 * out);
  work.flops = 2.0 * Double(rows * out * in);
  const int64_t tile_rows = few ? cuda::kProductFewRows : cuda::kProductManyRows;
  const double of_tile = 2.0 * Double(tile_rows * kTile * RoundUp(in, kTile));
  const int64_t row_tiles = DivideUp(rows, tile_rows);
  const int64_t times = format == WeightFormat::kLevels4 ? 2 : 1;  // levels have two parts
  work.done = of_tile * Double(row_tiles * DivideUp(out, kTile) * times);
  if (has_offsets) work.done += of_tile * Double(work.blocks);  // the sums of inputs
  return work;
}

std::vector<Work> LowRankWork(int64_t in, int64_t rank, int64_t out, int64_t adapters,
                              int64_t rows) {
  std::vector<cuda::LowRankSegment> segments;
  for (int64_t i = 0; i < adapters; ++i) {
    segments.push_back(SegmentOf<cuda::LowRankSegment>(i * rows, rows));
    segments.back().in = static_cast<int32_t>(in);
    segments.back().rank = static_cast<int32_t>(rank);
    segments.back().out = static_cast<int32_t>(out);
  }
  const cuda::LowRankPlan plan = cuda::PlanLowRank(segments, /*exact=*/false);
  std::vector<Work> works;
  for (const cuda::LowRankLaunch& launch : plan.launches) {
    const bool shrink = launch.step == cuda::LowRankStep::kShrinkFew ||
                        launch.step == cuda::LowRankStep::kShrinkMany;
    const bool few = launch.step == cuda::LowRankStep::kShrinkFew ||
                     launch.step == cuda::LowRankStep::kExpandFew;
    Work work;
    work.kernel =
        absl::StrFormat("LowRank%s%s", shrink ? "Shrink" : "Expand", few ? "Few" : "Many");
    work.shape =
        absl::StrFormat("rank %d of [%d, %d], adapters %d, rows %d", rank, out, in, adapters, rows);
    work.blocks = launch.num_items;
    const int64_t wide = shrink ? in : out;
    const int64_t padded_rank = RoundUp(rank, kTile);
    work.bytes = 2.0 * Double(adapters * RoundUp(wide, kTile) * padded_rank) +
                 Double(adapters * rows) * Double((shrink ? 2 : 8) * wide + 2 * padded_rank);
    work.flops = 2.0 * Double(adapters * rows) * Double(wide * rank);
    const int64_t tile_rows = few ? cuda::kFewRows : cuda::kManyRows;
    work.done = 2.0 * Double(adapters * DivideUp(rows, tile_rows) * tile_rows) *
                Double(RoundUp(wide, kTile) * padded_rank);
    works.push_back(work);
  }
  return works;
}

Work SignWork(int64_t in, int64_t out, int64_t rows) {
  auto segment = SegmentOf<cuda::SignSegment>(0, rows);
  segment.in = static_cast<int32_t>(in);
  segment.out = static_cast<int32_t>(out);
  Work work;
  work.kernel = "SignProducts";
  work.shape = absl::StrFormat("[%d, %d], rows %d", out, in, rows);
  work.blocks = static_cast<int64_t>(cuda::PlanSigns({&segment, 1}, false).at(0).size());
  work.bytes = Double(RoundUp(out, kTile) * RoundUp(in, cuda::kSignInputs)) / 8 + 4 * Double(out) +
               Double(rows) * Double(2 * in + 8 * out);
  work.flops = 2.0 * Double(rows * out * in);
  work.done = 2.0 * Double(RoundUp(rows, cuda::kSignRows)) *
              Double(RoundUp(out, kTile) * RoundUp(in, kTile));
  return work;
}

std::vector<Work> AttentionWork(const AttentionWorkShape& shape) {
  std::vector<cuda::DeviceSequence> sequences;
  for (int64_t i = 0; i < shape.sequences; ++i) {
    sequences.push_back(SegmentOf<cuda::DeviceSequence>(i * shape.rows, shape.rows));
    sequences.back().context_end = static_cast<int32_t>(shape.context);
  }
  const cuda::AttentionPlan plan = cuda::PlanAttention(
      sequences, {static_cast<int32_t>(shape.heads), static_cast<int32_t>(shape.kv_heads), 0});
  const bool turned = IsTurned(shape.format);
  const int64_t stride = RoundUp(shape.dim, turned ? int64_t{32} : kTile);
  const int64_t slot_bytes = 4 * ((turned ? stride : shape.dim) + 2);
  const int64_t all_rows = shape.sequences * shape.rows;
  Work attend;
  attend.kernel = "AttendPages";
  attend.shape =
      absl::StrFormat("%s pages, heads %d over %d of %d, context %d, sequences %d, rows %d",
                      NameOfPages(shape.format), shape.heads, shape.kv_heads, shape.dim,
                      shape.context, shape.sequences, shape.rows);
  attend.blocks = static_cast<int64_t>(plan.items.size());
  attend.bytes = Double(shape.sequences * shape.context * shape.kv_heads) * KvBytes(shape, stride) +
                 4.0 * Double(all_rows * shape.heads * shape.dim);
  for (const cuda::AttentionItem& item : plan.items) {
    const int64_t pages = DivideUp(item.key_end, kTile) - item.key_begin / kTile;
    const int64_t tiles = DivideUp(item.rows, cuda::kAttentionTile);
    attend.done += 4.0 * Double(tiles * cuda::kAttentionTile * pages * kTile * stride);
    const int64_t spans =
        (item.key_end - 1) / cuda::kAttentionSpan - item.key_begin / cuda::kAttentionSpan + 1;
    attend.bytes +=
        Double(item.rows * (2 * spans - 1) * slot_bytes);  // read again by each later one
  }
  const double seen = Double(shape.rows * (2 * shape.context - shape.rows + 1)) / 2;  // of all rows
  attend.flops = 4.0 * Double(shape.sequences * shape.heads * shape.dim) * seen;
  Work merge;
  merge.kernel = turned ? "MergeTurnedSlots" : "MergeSlots";
  merge.shape = attend.shape;
  merge.blocks = static_cast<int64_t>(plan.merges.size());
  merge.bytes =
      Double(plan.num_partials * slot_bytes) + 2.0 * Double(all_rows * shape.heads * shape.dim);
  merge.flops = 3.0 * Double(plan.num_partials * shape.dim);
  merge.done = merge.flops;
  merge.in_tensors = false;
  return {attend, merge};
}

std::vector<Work> RowWorks(int64_t rows) {
  constexpr int64_t kHidden = 4096;
  constexpr int64_t kInner = 14336;
  constexpr int64_t kVocabulary = 128256;
  constexpr int64_t kHeads = 32;
  constexpr int64_t kKvHeads = 8;
  constexpr int64_t kDim = 128;
  constexpr int64_t kRank = 16;
  constexpr int64_t kBlock = 64;
  constexpr int64_t kKeys = 10;
  const double vector = 4.0 * kHidden;  // of fp32
  std::vector<Work> works = {
      RowWork("NormRows", rows, kHidden, 4 + 2, 4, vector),
      RowWork("ActivateRows", rows, kInner, 8 + 2, 5, 0),
      RowWork("ApplyVectors", rows, kHidden, 8, 2, vector),
      RowWork("MoveRows", rows, kHidden, 4 + 2, 0, 0),
      RowWork("GatherFloatRows", rows, kHidden, 8, 0, 0),
      RowWork("ArgMaxRows", rows, kVocabulary, 4, 1, 0),
      RowWork("EmbedRows", rows, kHidden, 2 + 4, 0, 0),
      RowWork("ReplaceEmbeddings", rows, kHidden, 8, 0, 0),
      RowWork("AddLowRankEmbeddings", rows, kHidden, 8, 2 * kRank, 4.0 * kHidden * kRank),
      RowWork("NormActivations", rows, kHidden, 2 + 2, 5, 2 * vector),
      RowWork("RotatePairs", rows, kHidden, 8, 3, 2 * vector),
      RowWork("RotateBlocks", rows, kHidden, 2 + 2, 2 * kBlock, 4.0 * kHidden * kBlock),
  };
  // From all ids: the largest, then a weight of each, of which the exponential is 22, and their
  // sum. Top-k, top-p and min-p make weights again in each pass.
  works.push_back(RowWork("DrawTokens", rows, kVocabulary, 4, 1 + 2 + 22 + 1, 0));
  // q, read and written, and an adapter's keys and values; scores and sums.
  works.push_back(RowWork("AddGatedPrefixRows", rows, kHidden, 4 + 4, 4 * kKeys,
                          2.0 * 4 * kKeys * kKvHeads * kDim));
  // q read and written, k and v read and stored; three operations an element turned.
  for (const KvFormat format : {KvFormat::kBF16, KvFormat::kInt8, KvFormat::kInt4}) {
    const AttentionWorkShape shape{kHeads, kKvHeads, kDim, 1, 1, rows, format};
    Work work = RowWork("RotateAndStoreRows", rows, (kHeads + 2 * kKvHeads) * kDim, 4, 0, 0);
    work.shape += absl::StrFormat(", %s pages", NameOfPages(format));
    work.bytes += Double(rows) * (4.0 * kHeads * kDim + kKvHeads * KvBytes(shape, kDim));
    work.flops = Double(rows) * 3 * (kHeads + kKvHeads) * kDim;
    work.done = work.flops;
    works.push_back(work);
  }
  auto sparse = SegmentOf<cuda::SparseSegment>(0, rows);
  sparse.out = sparse.num_outputs = sparse.in = kHidden;
  constexpr int64_t kStored = kHidden * kHidden / 100;
  works.push_back(RowWork("SparseProducts", rows, kHidden, 2 + 8, 0, 8.0 * kStored + vector));
  works.back().shape += ", one in a hundred stored";
  works.back().blocks = static_cast<int64_t>(cuda::PlanSparse({&sparse, 1}).at(0).size());
  works.back().flops = works.back().done = 2.0 * Double(rows * kStored);
  auto kronecker = SegmentOf<cuda::KroneckerSegment>(0, rows);
  kronecker.l = kronecker.m = kronecker.k = kronecker.n = kBlock;
  works.push_back(
      RowWork("KroneckerProducts", rows, kHidden, 2 + 8, 4 * kBlock, 2 * 4.0 * kBlock * kBlock));
  works.back().blocks = static_cast<int64_t>(cuda::PlanKronecker({&kronecker, 1}).at(0).size());
  // Inner sums are made anew for each tile of the outer matrix' rows.
  works.back().done *= (1.0 + DivideUp(kBlock, cuda::kKroneckerTile)) / 2;
  return works;
}

}  // namespace polyad::test
