#include "kernels/shard/sharded_delta.h"

#include <type_traits>
#include <utility>
#include <variant>

#include "kernels/api/delta_check.h"

namespace polyad {
namespace {

template <typename T>
std::span<const T> PartOf(std::span<const T> values, Slice slice, int64_t each = 1) {
  return values.subspan(static_cast<size_t>(slice.begin * each),
                        static_cast<size_t>(slice.size() * each));
}

// An op's outputs [own.begin, own.end), over the op's own memory or `room`.
DeltaOp OutputsOf(const LowRank& op, Slice own, std::vector<int32_t>&) {
  LowRank part = op;
  part.b = RowsOfMatrix(op.b, own);
  if (!op.outer.empty()) part.outer = PartOf(op.outer, own);
  return part;
}

DeltaOp OutputsOf(const Dense& op, Slice own, std::vector<int32_t>&) {
  return Dense{RowsOfMatrix(op.delta, own), op.scale};
}

DeltaOp OutputsOf(const SignBits& op, Slice own, std::vector<int32_t>&) {
  SignBits part = op;
  part.out = own.size();
  part.bits = PartOf(op.bits, own, (op.in + 31) / 32);
  if (op.scale.size() > 1) {
    part.scale = PartOf(op.scale, own, static_cast<int64_t>(op.scale.size()) / op.out);
  }
  return part;
}

DeltaOp OutputsOf(const Sparse& op, Slice own, std::vector<int32_t>& room) {
  const auto first = static_cast<size_t>(own.begin);
  const auto count = static_cast<size_t>(own.size());
  const int32_t begin = op.row_begin[first];
  const int32_t end = op.row_begin[first + count];
  room.clear();
  for (size_t row = first; row <= first + count; ++row) room.push_back(op.row_begin[row] - begin);
  Sparse part = op;
  part.row_begin = room;
  part.columns = PartOf(op.columns, {begin, end});
  part.values = PartOf(op.values, {begin, end});
  return part;
}

template <typename Op>
constexpr bool kIsSplit = std::is_same_v<Op, LowRank> || std::is_same_v<Op, Dense> ||
                          std::is_same_v<Op, SignBits> || std::is_same_v<Op, Sparse>;

// What `rank` shares among the ops of the adapter that `share` belongs to: memory of its own
// backend.
PackShare& ShareOf(PackShare& share, Backend& rank) {
  const PackShare::Key key(&rank, -1, -1, DType::kF32, 0.0f);
  std::shared_ptr<const void> found = share.Find(key);
  if (found == nullptr) {
    found = std::make_shared<PackShare>();
    share.Insert(key, found);
  }
  return *const_cast<PackShare*>(static_cast<const PackShare*>(found.get()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShardedDelta>> ShardedDelta::Pack(std::span<Backend* const> ranks,
                                                                 const DeltaOp& op,
                                                                 PackShare& share) {
  const absl::Status status = CheckDeltaOp(op);
  if (!status.ok()) return status;
  const auto size = static_cast<int>(ranks.size());
  std::unique_ptr<ShardedDelta> delta(new ShardedDelta());
  const int64_t out = ShapeOf(op).out;
  delta->outputs_ = {0, out, OutputUnit(out, size)};
  delta->is_split_ =
      std::visit([](const auto& kind) { return kIsSplit<std::decay_t<decltype(kind)>>; }, op);
  for (int rank = 0; rank < size; ++rank) {
    Backend& backend = *ranks[static_cast<size_t>(rank)];
    const Slice own = delta->outputs_.Of(rank, size);
    delta->packed_.push_back(nullptr);
    if (delta->is_split_ && own.size() == 0) continue;
    std::vector<int32_t> room;
    const DeltaOp part = std::visit(
        [&](const auto& kind) -> DeltaOp {
          if constexpr (kIsSplit<std::decay_t<decltype(kind)>>) {
            return OutputsOf(kind, own, room);
          } else {
            return kind;
          }
        },
        op);
    absl::StatusOr<std::unique_ptr<PackedDelta>> packed =
        backend.PackDelta(part, ShareOf(share, backend));
    if (!packed.ok()) return packed.status();
    delta->packed_.back() = *std::move(packed);
  }
  return delta;
}

DeltaCost ShardedDelta::cost() const {
  DeltaCost cost;
  for (const auto& rank : packed_) {
    if (rank != nullptr) cost += rank->cost();
  }
  return cost;
}

}  // namespace polyad
