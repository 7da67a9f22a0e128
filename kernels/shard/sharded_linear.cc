#include "kernels/shard/sharded_linear.h"

#include <tuple>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/api/check.h"
#include "kernels/api/round_up.h"

namespace polyad {
namespace {

int64_t RowsOf(const ShardedSegment& segment) { return segment.row_end - segment.row_begin; }
int64_t StrideOf(const ShardedSegment& segment) {
  return RoundUp(segment.op->rank, kMiddleElements);
}

// How many ranks of a delta the others have at most, so that all send as many numbers.
int64_t Widest(int64_t rank, int size) { return SliceOf(rank, 1, 0, size).size(); }

float* Floats(const std::shared_ptr<void>& memory) { return static_cast<float*>(memory.get()); }

FloatRows RowsAt(const std::shared_ptr<void>& memory, int64_t at, int64_t rows, int64_t cols) {
  return {Floats(memory) + at, rows, cols, cols};
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShardedLinear>> ShardedLinear::Create(
    Backend& backend, Communicator& group, ShardAxis axis, std::span<const LinearPart> parts,
    const float* bias, const ShardedLimits& limits) {
  if (parts.empty() || (axis == ShardAxis::kInputs && parts.size() != 1)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a layer split by inputs: expected 1 part, got %d", parts.size()));
  }
  if (group.size() > kMaxShards) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a group: expected up to %d ranks, got %d", kMaxShards, group.size()));
  }
  std::unique_ptr<ShardedLinear> linear(new ShardedLinear(backend, group, axis));
  const bool by_outputs = axis == ShardAxis::kOutputs;
  linear->num_inputs_ = parts[0].weight.cols;
  linear->own_inputs_ = {0, linear->num_inputs_};
  std::vector<WeightShard> shards;
  int64_t first = 0;  // of all parts' outputs
  for (const LinearPart& part : parts) {
    const int64_t count = by_outputs ? part.weight.rows : part.weight.cols;
    const Slice own = SliceOf(count, part.unit, group.rank(), group.size());
    if (own.size() == 0) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "%d in units of %d cannot be split among %d", count, part.unit, group.size()));
    }
    absl::StatusOr<WeightShard> shard = WeightShard::Of(part.weight, axis, own);
    if (!shard.ok()) return shard.status();
    shards.push_back(*std::move(shard));
    if (!by_outputs) linear->own_inputs_ = own;
    const Slice outputs =
        by_outputs ? own : SliceOf(part.weight.rows, 1, group.rank(), group.size());
    linear->y_columns_.push_back(
        by_outputs ? (linear->own_outputs_.empty()
                          ? 0
                          : linear->y_columns_.back() + linear->own_outputs_.back().size())
                   : outputs.begin);
    linear->own_outputs_.push_back(outputs);
    linear->part_outputs_.push_back(part.weight.rows);
    if (bias != nullptr && by_outputs) {
      linear->bias_.insert(linear->bias_.end(), bias + first + own.begin, bias + first + own.end);
    }
    first += part.weight.rows;
  }
  // A sum of all ranks' has the bias once.
  if (bias != nullptr && !by_outputs && group.rank() == 0) linear->bias_.assign(bias, bias + first);
  std::vector<TensorView> views;
  for (const WeightShard& shard : shards) views.push_back(shard.view());
  absl::StatusOr<std::unique_ptr<PackedMatrix>> packed = backend.PackMatrix(views);
  if (!packed.ok()) return packed.status();
  linear->weight_ = *std::move(packed);
  const absl::Status status = linear->Allocate(limits);
  if (!status.ok()) return status;
  return linear;
}

absl::Status ShardedLinear::Allocate(const ShardedLimits& limits) {
  limits_ = limits;
  const std::pair<std::shared_ptr<void>*, int64_t> wanted[] = {{&own_, limits.max_middle},
                                                               {&gathered_, 2 * limits.max_middle},
                                                               {&middle_, limits.max_middle},
                                                               {&rounded_, limits.max_middle}};
  for (const auto& [memory, floats] : wanted) {
    absl::StatusOr<std::shared_ptr<void>> got =
        backend_.Allocate(floats * static_cast<int64_t>(sizeof(float)));
    if (!got.ok()) return got.status();
    *memory = *std::move(got);
  }
  return absl::OkStatus();
}

Slice ShardedLinear::RanksOf(int64_t rank) const {
  return SliceOf(rank, 1, group_.rank(), group_.size());
}

absl::StatusOr<ShardedLowRank> ShardedLinear::Pack(const LowRank& op, int64_t part) const {
  const int64_t out = part_outputs_[static_cast<size_t>(part)];
  if (op.a.cols != num_inputs_ || op.b.rows != out || op.b.cols != op.a.rows) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "a low-rank delta: expected A [r, %d] and B [%d, r], got [%d, %d], [%d, %d]", num_inputs_,
        out, op.a.rows, op.a.cols, op.b.rows, op.b.cols));
  }
  WeightShard scaled_a;
  WeightShard scaled_b;
  TensorView a = op.a;
  TensorView b = op.b;
  for (const auto& [factors, scaled, view] :
       {std::tuple{op.inner, &scaled_a, &a}, std::tuple{op.outer, &scaled_b, &b}}) {
    if (factors.empty()) continue;
    absl::StatusOr<WeightShard> rows = WeightShard::ScaledRows(*view, factors);
    if (!rows.ok()) return rows.status();
    *scaled = *std::move(rows);
    *view = scaled->view();
  }
  ShardedLowRank share;
  share.rank = op.a.rows;
  share.y_column = y_columns_[static_cast<size_t>(part)];
  const bool by_outputs = axis_ == ShardAxis::kOutputs;
  const Slice of_a = by_outputs ? RanksOf(share.rank) : own_inputs_;
  if (of_a.size() > 0) {
    absl::StatusOr<WeightShard> own =
        WeightShard::Of(a, by_outputs ? ShardAxis::kOutputs : ShardAxis::kInputs, of_a);
    if (!own.ok()) return own.status();
    const TensorView view = own->view();
    absl::StatusOr<std::unique_ptr<PackedMatrix>> packed = backend_.PackMatrix({&view, 1});
    if (!packed.ok()) return packed.status();
    share.a = *std::move(packed);
    share.cost.bytes += share.a->bytes();
    share.cost.flops_per_token += 2 * share.a->in() * share.a->out();
  }
  const Slice of_b = OwnOutputs(part);
  if (of_b.size() > 0) {
    absl::StatusOr<WeightShard> own = WeightShard::Of(b, ShardAxis::kOutputs, of_b);
    if (!own.ok()) return own.status();
    PackShare nobody_elses;
    absl::StatusOr<std::unique_ptr<PackedDelta>> packed =
        backend_.PackDelta(Dense{own->view(), op.scale}, nobody_elses);
    if (!packed.ok()) return packed.status();
    share.b = *std::move(packed);
    share.cost += share.b->cost();
  }
  return share;
}

void ShardedLinear::Run(ActivationRows x, std::span<const ShardedSegment> segments, FloatRows y) {
  backend_.Gemm({weight_.get(), bias_.empty() ? nullptr : bias_.data(), false, {}}, x, y);
  if (!segments.empty()) {
    MakeMiddles(x, segments);
    AddDeltas(segments, y);
  }
  if (axis_ == ShardAxis::kInputs) {
    KERNEL_CHECK(y.stride == y.cols, "rows that are summed over ranks lie without gaps");
    group_.AllReduce({y.data, static_cast<size_t>(y.rows * y.cols)});
  }
}

void ShardedLinear::MakeMiddles(ActivationRows x, std::span<const ShardedSegment> segments) {
  int64_t total = 0;
  for (const ShardedSegment& segment : segments) total += RowsOf(segment) * StrideOf(segment);
  KERNEL_CHECK(total <= limits_.max_middle, "a call's middles are within the layer's limits");
  const FloatRows all = RowsAt(middle_, 0, 1, total);
  backend_.Zero(all);  // behind the ranks too: a device reads whole tiles
  if (axis_ == ShardAxis::kOutputs) {
    GatherMiddles(x, segments);
  } else {
    SumMiddles(x, segments);
  }
  backend_.Convert(all, {rounded_.get(), backend_.activation_dtype(), 1, total, total});
}

void ShardedLinear::GatherMiddles(ActivationRows x, std::span<const ShardedSegment> segments) {
  int64_t sent = 0;
  for (const ShardedSegment& segment : segments) {
    const int64_t width = Widest(segment.op->rank, group_.size());
    const FloatRows own = RowsAt(own_, sent, RowsOf(segment), width);
    if (segment.op->a != nullptr) {
      backend_.Gemm({segment.op->a.get(), nullptr, false, {}},
                    x.Slice(segment.row_begin, segment.row_end),
                    own.Columns(0, segment.op->a->out()));
    }
    sent += own.rows * width;
  }
  group_.AllGather({Floats(own_), static_cast<size_t>(sent)},
                   {Floats(gathered_), static_cast<size_t>(sent * group_.size())});
  for (int rank = 0; rank < group_.size(); ++rank) {
    int64_t from = rank * sent;
    int64_t to = 0;
    for (const ShardedSegment& segment : segments) {
      const int64_t width = Widest(segment.op->rank, group_.size());
      const Slice ranks = SliceOf(segment.op->rank, 1, rank, group_.size());
      const FloatRows theirs = RowsAt(gathered_, from, RowsOf(segment), width);
      const FloatRows middle = RowsAt(middle_, to, RowsOf(segment), StrideOf(segment));
      if (ranks.size() > 0) {
        backend_.Copy(theirs.Columns(0, ranks.size()), middle.Columns(ranks.begin, ranks.size()));
      }
      from += theirs.rows * width;
      to += middle.rows * middle.cols;
    }
  }
}

void ShardedLinear::SumMiddles(ActivationRows x, std::span<const ShardedSegment> segments) {
  int64_t sent = 0;
  for (const ShardedSegment& segment : segments) {
    backend_.Gemm({segment.op->a.get(), nullptr, false, {}},
                  x.Slice(segment.row_begin, segment.row_end),
                  RowsAt(own_, sent, RowsOf(segment), segment.op->rank));
    sent += RowsOf(segment) * segment.op->rank;
  }
  group_.AllReduce({Floats(own_), static_cast<size_t>(sent)});
  int64_t from = 0;
  int64_t to = 0;
  for (const ShardedSegment& segment : segments) {
    const int64_t rank = segment.op->rank;
    const FloatRows middle = RowsAt(middle_, to, RowsOf(segment), StrideOf(segment));
    backend_.Copy(RowsAt(own_, from, middle.rows, rank), middle.Columns(0, rank));
    from += middle.rows * rank;
    to += middle.rows * middle.cols;
  }
}

void ShardedLinear::AddDeltas(std::span<const ShardedSegment> segments, FloatRows y) {
  const DType dtype = backend_.activation_dtype();
  int64_t at = 0;
  for (const ShardedSegment& segment : segments) {
    const ShardedLowRank& op = *segment.op;
    const int64_t rows = RowsOf(segment);
    char* begin = static_cast<char*>(rounded_.get()) + at * InfoOf(dtype).block_bytes;
    at += rows * StrideOf(segment);
    if (op.b == nullptr) continue;
    const DeltaSegment own{0, rows, op.y_column, op.b.get(), segment.scale};
    backend_.Apply({&own, 1}, {begin, dtype, rows, op.rank, StrideOf(segment)},
                   y.Slice(segment.row_begin, segment.row_end));
  }
}

}  // namespace polyad
