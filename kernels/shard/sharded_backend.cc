#include "kernels/shard/sharded_backend.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/api/check.h"
#include "kernels/api/round_up.h"
#include "kernels/shard/sharded_delta.h"
#include "kernels/shard/sharded_kv.h"
#include "kernels/shard/sharded_matrix.h"

namespace polyad {
namespace {

constexpr int64_t kAlignment = 64;

const ShardedMatrix& MatrixOf(const PackedMatrix& weight) {
  return static_cast<const ShardedMatrix&>(weight);
}
const ShardedDelta& OpOf(const DeltaSegment& segment) {
  return static_cast<const ShardedDelta&>(*segment.op);
}
const ShardedKv& KvOf(const KvStorage& kv) { return static_cast<const ShardedKv&>(kv); }

ActivationRows AsActivations(const FloatRows& rows) {
  return {rows.data, DType::kF32, rows.rows, rows.cols, rows.stride};
}

// Where a call's segments end that one exchange serves: outputs of which no two overlap but those
// that are split alike. Adds theirs to `ranges`.
size_t SegmentsOfOneExchange(std::span<const DeltaSegment> segments,
                             std::vector<OutputRange>& ranges) {
  for (size_t i = 0; i < segments.size(); ++i) {
    if (!OpOf(segments[i]).is_split()) continue;
    const OutputRange own = OpOf(segments[i]).OutputsAt(segments[i].y_column);
    bool is_there = false;
    for (const OutputRange& range : ranges) {
      if (range == own) {
        is_there = true;
      } else if (range.Overlaps(own)) {
        return i;
      }
    }
    if (!is_there) ranges.push_back(own);
  }
  return segments.size();
}

}  // namespace

// --- ranks and their memory ---

absl::StatusOr<std::unique_ptr<ShardedBackend>> ShardedBackend::Create(Ranks ranks) {
  KERNEL_CHECK(!ranks.backends.empty() && ranks.backends.size() == ranks.communicators.size(),
               "a communicator of each rank");
  std::unique_ptr<ShardedBackend> backend(new ShardedBackend(std::move(ranks)));
  for (int rank = 0; rank < backend->size(); ++rank) {
    absl::StatusOr<std::unique_ptr<RowExchange>> exchange =
        RowExchange::Create(*backend->ranks_[static_cast<size_t>(rank)],
                            *backend->communicators_[static_cast<size_t>(rank)]);
    if (!exchange.ok()) return exchange.status();
    backend->exchanges_.push_back(*std::move(exchange));
  }
  return backend;
}

ShardedBackend::ShardedBackend(Ranks ranks)
    : backends_(std::move(ranks.backends)),
      communicators_(std::move(ranks.communicators)),
      threads_(static_cast<int>(backends_.size())) {
  for (const auto& backend : backends_) ranks_.push_back(backend.get());
}

BackendInfo ShardedBackend::info() const {
  BackendInfo info = backends_[0]->info();
  info.isa = absl::StrFormat("%d x %s", size(), info.isa);
  info.num_threads = 0;
  for (const auto& backend : backends_) info.num_threads += backend->info().num_threads;
  return info;
}

absl::StatusOr<std::shared_ptr<void>> ShardedBackend::Allocate(int64_t bytes) {
  if (bytes < 0) {
    return absl::ResourceExhaustedError(absl::StrFormat("cannot allocate %d bytes", bytes));
  }
  RankMemory::Copies copies;
  for (Backend* rank : ranks_) {
    absl::StatusOr<std::shared_ptr<void>> own =
        rank->Allocate(RoundUp(std::max<int64_t>(bytes, 1), kAlignment));
    if (!own.ok()) return own.status();
    copies.push_back(*std::move(own));
  }
  return memory_.Add(std::move(copies), std::max<int64_t>(bytes, 1));
}

template <typename Rows>
Rows ShardedBackend::Everywhere<Rows>::At(int rank) const {
  Rows own = rows;
  own.data = static_cast<decltype(own.data)>(place.At(rank));
  return own;
}

template <typename Rows>
ShardedBackend::Everywhere<Rows> ShardedBackend::Read(Rows rows) const {
  return {rows, memory_.Find(rows.data)};
}

template <typename Rows>
ShardedBackend::Everywhere<Rows> ShardedBackend::Written(Rows rows) const {
  const Everywhere<Rows> everywhere = Read(rows);
  KERNEL_CHECK(rows.rows == 0 || everywhere.place.is_copied(),
               "rows that ranks write lie in memory of Allocate");
  return everywhere;
}

void ShardedBackend::ForRanks(absl::FunctionRef<void(int rank, Backend& backend)> call) {
  threads_.Run([&](int rank) { call(rank, *ranks_[static_cast<size_t>(rank)]); });
}

void ShardedBackend::Finish() {
  ForRanks([](int, Backend& backend) { backend.Finish(); });
}

void ShardedBackend::HostWrote(FloatRows rows) {
  if (rows.rows == 0) return;
  const Everywhere<FloatRows> everywhere = Read(rows);
  if (!everywhere.place.is_copied()) return;
  for (int rank = 1; rank < size(); ++rank) {
    const FloatRows own = everywhere.At(rank);
    for (int64_t row = 0; row < rows.rows; ++row) {
      std::copy_n(rows.Row(row), rows.cols, own.Row(row));
    }
  }
}

// --- packing ---

absl::StatusOr<std::unique_ptr<PackedMatrix>> ShardedBackend::PackMatrix(
    std::span<const TensorView> parts) {
  return ShardedMatrix::Pack(ranks_, parts);
}

absl::StatusOr<std::unique_ptr<PackedDelta>> ShardedBackend::PackDelta(const DeltaOp& op,
                                                                       PackShare& share) {
  return ShardedDelta::Pack(ranks_, op, share);
}

absl::StatusOr<int64_t> ShardedBackend::KvBlockBytes(const KvShape& shape) const {
  return ShardedKv::BlockBytes(ranks_, shape);
}

absl::StatusOr<std::unique_ptr<KvStorage>> ShardedBackend::AllocateKv(const KvShape& shape,
                                                                      int64_t num_blocks) {
  return ShardedKv::Create(ranks_, shape, num_blocks);
}

// --- what is split ---

void ShardedBackend::ProductOfRows(const PackedMatrix& weight, int64_t first_row, FloatRows x,
                                   FloatRows y) {
  const ShardedMatrix& matrix = MatrixOf(weight);
  const int64_t last_row = first_row + y.cols;
  for (size_t part = 0; part < matrix.ranges().size(); ++part) {
    const OutputRange& range = matrix.ranges()[part];
    for (int rank = 0; rank < size(); ++rank) {
      const Slice own = range.Of(rank, size());
      const int64_t origin = range.column + own.begin;
      const int64_t begin = std::max(first_row, origin);
      const int64_t end = std::min(last_row, range.column + own.end);
      if (begin >= end) continue;
      ranks_[static_cast<size_t>(rank)]->ProductOfRows(*matrix.Part(part, rank), begin - origin, x,
                                                       y.Columns(begin - first_row, end - begin));
    }
  }
}

void ShardedBackend::Embed(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) {
  GatherTableRows(table, ids, out, /*adds=*/false);
}

void ShardedBackend::AddRows(const PackedMatrix& table, std::span<const int32_t> ids,
                             FloatRows out) {
  GatherTableRows(table, ids, out, /*adds=*/true);
}

// Each rank reads the rows that it has, and any other in the place of those that it has not.
void ShardedBackend::GatherTableRows(const PackedMatrix& table, std::span<const int32_t> ids,
                                     FloatRows out, bool adds) {
  const ShardedMatrix& matrix = MatrixOf(table);
  KERNEL_CHECK(table.in() == out.cols && out.rows == static_cast<int64_t>(ids.size()),
               "embed shapes");
  std::vector<int32_t> owners;
  std::vector<int32_t> own_rows;
  for (const int32_t id : ids) {
    const ShardedMatrix::Owner owner = matrix.OwnerOf(id);
    owners.push_back(owner.rank);
    own_rows.push_back(owner.row);
  }
  const Everywhere<FloatRows> to = Written(out);
  ForRanks([&](int rank, Backend& backend) {
    const PackedMatrix* part = matrix.Part(0, rank);
    std::vector<int32_t> read;
    exchanges_[static_cast<size_t>(rank)]->GatherRowsOf(
        owners, to.At(rank), adds, [&](int64_t begin, int64_t end, FloatRows rows) {
          if (part == nullptr) return;
          read.clear();
          for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
            read.push_back(owners[i] == rank ? own_rows[i] : 0);
          }
          backend.Embed(*part, read, rows);
        });
  });
}

void ShardedBackend::Gemm(const GemmArgs& args, ActivationRows x, FloatRows y) {
  const ShardedMatrix& matrix = MatrixOf(*args.weight);
  const Everywhere<ActivationRows> from = Read(x);
  const Everywhere<FloatRows> to = Written(y);
  ForRanks([&](int rank, Backend& backend) {
    for (size_t part = 0; part < matrix.ranges().size(); ++part) {
      const OutputRange& range = matrix.ranges()[part];
      const Slice own = range.Of(rank, size());
      if (own.size() == 0) continue;
      const int64_t column = range.column + own.begin;
      const float* bias = args.bias == nullptr ? nullptr : args.bias + column;
      backend.Gemm({matrix.Part(part, rank), bias, args.accumulate, {}}, from.At(rank),
                   to.At(rank).Columns(column, own.size()));
    }
  });
  ApplyAndGather(args.deltas, {matrix.ranges().begin(), matrix.ranges().end()}, x, y);
}

void ShardedBackend::Apply(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y) {
  if (!segments.empty()) ApplyAndGather(segments, {}, x, y);
}

// Ops that are whole add to columns that the rank does not have yet, too: what they leave there is
// the owner's after the exchange, who added the same in the same order.
void ShardedBackend::ApplyAndGather(std::span<const DeltaSegment> segments,
                                    std::vector<OutputRange> ranges, ActivationRows x,
                                    FloatRows y) {
  const Everywhere<ActivationRows> from = Read(x);
  const Everywhere<FloatRows> to = Written(y);
  do {
    const size_t count = SegmentsOfOneExchange(segments, ranges);
    ForRanks([&](int rank, Backend& backend) {
      const std::vector<DeltaSegment> own = SegmentsAt(rank, segments.first(count));
      if (!own.empty()) backend.Apply(own, from.At(rank), to.At(rank));
      exchanges_[static_cast<size_t>(rank)]->Gather(AsActivations(to.At(rank)), ranges);
    });
    segments = segments.subspan(count);
    ranges.clear();
  } while (!segments.empty());
}

std::vector<DeltaSegment> ShardedBackend::SegmentsAt(int rank,
                                                     std::span<const DeltaSegment> segments) const {
  std::vector<DeltaSegment> own;
  own.reserve(segments.size());
  for (const DeltaSegment& segment : segments) {
    const ShardedDelta& op = OpOf(segment);
    if (op.At(rank) == nullptr) continue;
    own.push_back(segment);
    own.back().op = op.At(rank);
    if (op.is_split()) own.back().y_column += op.OutputsAt(0).Of(rank, size()).begin;
    if (segment.row_scale != nullptr) {
      own.back().row_scale = static_cast<const float*>(memory_.Find(segment.row_scale).At(rank));
    }
  }
  return own;
}

// --- attention: heads of K/V, and those of q that read them ---

void ShardedBackend::RotateAndStore(const QkvArgs& args) {
  const KvShape& shape = KvOf(*args.kv).shape();
  KERNEL_CHECK(args.qkv.cols == (args.num_heads + 2 * shape.num_kv_heads) * shape.head_dim,
               "qkv width");
  no_slots_.assign(args.slots.size(), -1);
  const Everywhere<FloatRows> qkv = Read(args.qkv);
  KERNEL_CHECK(args.num_heads == 0 || args.qkv.rows == 0 || qkv.place.is_copied(),
               "rows that ranks write lie in memory of Allocate");
  ForRanks([&](int rank, Backend&) {
    StoreAt(rank, args, qkv.At(rank));
    if (args.num_heads > 0) RotateAt(rank, args, qkv.At(rank));
  });
}

// The rank's own heads of k and v, side by side, as rows of [k | v].
void ShardedBackend::StoreAt(int rank, const QkvArgs& args, FloatRows qkv) {
  const ShardedKv& kv = KvOf(*args.kv);
  const int64_t dim = kv.shape().head_dim;
  const Slice heads = kv.HeadsOf(rank);
  const int64_t width = heads.size() * dim;
  const int64_t k_column = (args.num_heads + heads.begin) * dim;
  const int64_t v_column = k_column + kv.shape().num_kv_heads * dim;
  Backend& backend = *ranks_[static_cast<size_t>(rank)];
  for (int64_t begin = 0; begin < qkv.rows;) {
    const FloatRows own =
        exchanges_[static_cast<size_t>(rank)]->Scratch(qkv.rows - begin, 2 * width);
    const FloatRows rows = qkv.Slice(begin, begin + own.rows);
    backend.Copy(rows.Columns(k_column, width), own.Columns(0, width));
    backend.Copy(rows.Columns(v_column, width), own.Columns(width, width));
    QkvArgs store = args;
    store.qkv = own;
    store.num_heads = 0;
    store.q_norm = nullptr;
    store.positions =
        args.positions.subspan(static_cast<size_t>(begin), static_cast<size_t>(own.rows));
    store.slots = args.slots.subspan(static_cast<size_t>(begin), static_cast<size_t>(own.rows));
    store.kv = kv.At(rank);
    backend.RotateAndStore(store);
    begin += own.rows;
  }
}

// All heads of q, which every rank keeps whole; nothing is stored. Columns as many as the rank's
// own K/V would have beside q.
void ShardedBackend::RotateAt(int rank, const QkvArgs& args, FloatRows qkv) {
  const ShardedKv& kv = KvOf(*args.kv);
  QkvArgs rotate = args;
  rotate.qkv = qkv.Columns(0, (args.num_heads + 2 * kv.HeadsOf(rank).size()) * kv.shape().head_dim);
  rotate.slots = no_slots_;
  rotate.kv = kv.At(rank);
  ranks_[static_cast<size_t>(rank)]->RotateAndStore(rotate);
}

void ShardedBackend::Attention(const AttentionArgs& args) {
  const ShardedKv& kv = KvOf(*args.kv);
  const int64_t group = args.num_heads / kv.shape().num_kv_heads;  // heads of q that share k and v
  const int64_t group_width = group * kv.shape().head_dim;
  const Everywhere<FloatRows> qkv = Read(args.qkv);
  const Everywhere<ActivationRows> out = Written(args.out);
  const OutputRange heads{0, args.num_heads * kv.shape().head_dim, group_width};
  ForRanks([&](int rank, Backend& backend) {
    const Slice columns = heads.Of(rank, size());
    const int64_t begin_bytes = columns.begin * InfoOf(args.out.dtype).block_bytes;
    std::vector<AttentionSequence> sequences(args.sequences.begin(), args.sequences.end());
    for (AttentionSequence& sequence : sequences) {
      if (sequence.key_gates.cols > 0) sequence.key_gates = Read(sequence.key_gates).At(rank);
    }
    AttentionArgs own = args;
    own.qkv = qkv.At(rank).Columns(columns.begin, columns.size());
    own.out = out.At(rank);
    own.out.data = static_cast<char*>(own.out.data) + begin_bytes;
    own.out.cols = columns.size();
    own.num_heads = columns.size() / kv.shape().head_dim;
    own.sequences = sequences;
    own.kv = kv.At(rank);
    backend.Attention(own);
    exchanges_[static_cast<size_t>(rank)]->Gather(out.At(rank), {&heads, 1});
  });
}

// --- what every rank does on whole rows ---

void ShardedBackend::Norm(const NormArgs& args, FloatRows x, ActivationRows y) {
  const auto from = Read(x);
  const auto to = Written(y);
  ForRanks([&](int rank, Backend& backend) { backend.Norm(args, from.At(rank), to.At(rank)); });
}

void ShardedBackend::AddGatedPrefix(const GatedPrefixArgs& args) {
  const auto q = Read(args.q);
  const auto kv = Read(args.kv);
  const auto out = Written(args.out);
  ForRanks([&](int rank, Backend& backend) {
    GatedPrefixArgs own = args;
    own.q = q.At(rank);
    own.kv = kv.At(rank);
    own.out = out.At(rank);
    backend.AddGatedPrefix(own);
  });
}

void ShardedBackend::Activate(ActivationKind kind, bool gated, FloatRows x, ActivationRows y) {
  const auto from = Read(x);
  const auto to = Written(y);
  ForRanks([&](int rank, Backend& backend) {
    backend.Activate(kind, gated, from.At(rank), to.At(rank));
  });
}

void ShardedBackend::GatherRows(FloatRows x, std::span<const int32_t> rows, FloatRows out) {
  const auto from = Read(x);
  const auto to = Written(out);
  ForRanks(
      [&](int rank, Backend& backend) { backend.GatherRows(from.At(rank), rows, to.At(rank)); });
}

void ShardedBackend::TransformInput(std::span<const DeltaSegment> segments, ActivationRows x) {
  const auto rows = Written(x);
  ForRanks([&](int rank, Backend& backend) {
    backend.TransformInput(SegmentsAt(rank, segments), rows.At(rank));
  });
}

void ShardedBackend::TransformOutput(std::span<const DeltaSegment> segments, FloatRows y) {
  const auto rows = Written(y);
  ForRanks([&](int rank, Backend& backend) {
    backend.TransformOutput(SegmentsAt(rank, segments), rows.At(rank));
  });
}

void ShardedBackend::TransformEmbedding(std::span<const DeltaSegment> segments,
                                        std::span<const int32_t> ids, FloatRows rows) {
  const auto to = Written(rows);
  ForRanks([&](int rank, Backend& backend) {
    backend.TransformEmbedding(SegmentsAt(rank, segments), ids, to.At(rank));
  });
}

void ShardedBackend::Copy(FloatRows from, FloatRows to) {
  Copy(AsActivations(from), AsActivations(to));
}

void ShardedBackend::Copy(ActivationRows from, ActivationRows to) {
  const auto source = Read(from);
  const auto target = Written(to);
  ForRanks([&](int rank, Backend& backend) { backend.Copy(source.At(rank), target.At(rank)); });
}

void ShardedBackend::Convert(FloatRows from, ActivationRows to) {
  const auto source = Read(from);
  const auto target = Written(to);
  ForRanks([&](int rank, Backend& backend) { backend.Convert(source.At(rank), target.At(rank)); });
}

void ShardedBackend::Zero(FloatRows rows) {
  const auto target = Written(rows);
  ForRanks([&](int rank, Backend& backend) { backend.Zero(target.At(rank)); });
}

void ShardedBackend::Accumulate(FloatRows x, FloatRows y) {
  const auto source = Read(x);
  const auto target = Written(y);
  ForRanks(
      [&](int rank, Backend& backend) { backend.Accumulate(source.At(rank), target.At(rank)); });
}

// --- what rank 0 alone is asked for ---

void ShardedBackend::ArgMax(FloatRows logits, std::span<TokenScore> best) {
  ranks_[0]->ArgMax(logits, best);
}

void ShardedBackend::Draw(FloatRows logits, std::span<const DrawArgs> draws,
                          std::span<int32_t> tokens) {
  ranks_[0]->Draw(logits, draws, tokens);
}

}  // namespace polyad
