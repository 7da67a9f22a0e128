#include "kernels/cpu/attention.h"

#include <algorithm>

#include "kernels/api/check.h"

namespace polyad::cpu {
namespace {

constexpr float kLog2E = 1.44269504088896341f;
constexpr int64_t kTasksPerThread =
    8;  // enough to even out tiles of unequal length, few enough to be cheap to take
constexpr int64_t kSharesPerThread = 4;  // a task of at most a quarter of a thread's work

// q, scores and what a piece needs, of a tile.
int64_t TileFloats(const AttentionKernels& kernels, const KvLayout& layout) {
  const int64_t bytes = kTileRows * kernels.query_bytes(layout) + kernels.piece_bytes(layout);
  return kTileRows * kPieceTokens + bytes / static_cast<int64_t>(sizeof(float));
}

int64_t PartialFloats(int64_t padded_dim) { return 16 + kTileRows * (16 + padded_dim); }

AttentionPartial PartialIn(float* memory) {
  return {memory, memory + 16, memory + 16 + kTileRows * 16};
}

int64_t FirstKey(const AttentionArgs& args, const AttentionSequence& sequence, int64_t position) {
  if (args.sliding_window <= 0) return sequence.first_key;
  return std::max(sequence.first_key, position - args.sliding_window + 1);
}

// Of the sequence's row `row`, counted from its first one of this step.
int64_t PositionOf(const AttentionSequence& sequence, int64_t row) {
  return sequence.context_end - (sequence.row_end - sequence.row_begin) + row;
}

}  // namespace

AttentionRunner::AttentionRunner(const AttentionKernels& plain, const AttentionKernels& coded,
                                 ThreadPool& pool)
    : plain_(plain),
      coded_(coded),
      pool_(pool),
      worker_memory_(static_cast<size_t>(pool.num_threads())) {}

void AttentionRunner::Run(const AttentionArgs& args) {
  const auto& kv = static_cast<const CpuKvStorage&>(*args.kv);
  const KvShape& shape = kv.shape();
  const Call call{&args,
                  &kv,
                  kv.layout().coded() ? &coded_ : &plain_,
                  args.num_heads / shape.num_kv_heads,
                  shape.head_dim,
                  kv.layout().padded_dim};
  KERNEL_CHECK(call.group * shape.num_kv_heads == args.num_heads, "heads per kv head");
  KERNEL_CHECK(args.out.cols == args.num_heads * shape.head_dim, "attention output width");
  CutTiles(call);
  CutTasks();
  const int64_t num_floats =
      TileFloats(*call.kernels, kv.layout()) + 2 * PartialFloats(call.padded_dim);
  for (std::vector<Line>& memory : worker_memory_) Reserve(memory, num_floats);
  float* partials = Reserve(span_memory_, num_partials_ * PartialFloats(call.padded_dim));
  const auto num_tasks = static_cast<int64_t>(tasks_.size());
  const int64_t together =
      std::max<int64_t>(1, num_tasks / (pool_.num_threads() * kTasksPerThread));
  pool_.Run((num_tasks + together - 1) / together, [&](int64_t task, int worker) {
    float* memory = worker_memory_[static_cast<size_t>(worker)].front().values;
    const int64_t end = std::min(num_tasks, (task + 1) * together);
    for (int64_t i = task * together; i < end; ++i) {
      RunTask(call, tasks_[static_cast<size_t>(i)], memory, partials);
    }
  });
  for (const TileRange& range : tiles_) {
    if (range.first_partial >= 0) MergeSpans(call, range, partials);
  }
}

void AttentionRunner::CutTiles(const Call& call) {
  tiles_.clear();
  for (const AttentionSequence& sequence : call.args->sequences) {
    KERNEL_CHECK(sequence.key_gates.cols % kBlock == 0, "gates of whole blocks of keys");
    const int64_t num_heads = (sequence.row_end - sequence.row_begin) * call.group;
    for (int64_t kv_head = 0; kv_head < call.kv->shape().num_kv_heads; ++kv_head) {
      for (int64_t first = 0; first < num_heads; first += call.kernels->tile_rows) {
        const int64_t count = std::min(call.kernels->tile_rows, num_heads - first);
        const int64_t begin =
            FirstKey(*call.args, sequence, PositionOf(sequence, first / call.group));
        const int64_t end = PositionOf(sequence, (first + count - 1) / call.group) + 1;
        const int64_t first_span = begin / kSpanTokens;
        const int64_t num_spans =
            std::max<int64_t>(1, (end + kSpanTokens - 1) / kSpanTokens - first_span);
        tiles_.push_back({&sequence, kv_head, first, count, first_span, num_spans, -1});
      }
    }
  }
}

// A tile is one task, unless its spans are more than its share of the threads' work: then each span
// is one.
void AttentionRunner::CutTasks() {
  tasks_.clear();
  num_partials_ = 0;
  int64_t all_spans = 0;
  for (const TileRange& range : tiles_) all_spans += range.num_spans;
  const int64_t share = std::max<int64_t>(1, all_spans / (pool_.num_threads() * kSharesPerThread));
  for (TileRange& range : tiles_) {
    if (pool_.num_threads() == 1 || range.num_spans <= share) {
      tasks_.push_back({&range, range.first_span, range.num_spans});
      continue;
    }
    range.first_partial = num_partials_;
    num_partials_ += range.num_spans;
    for (int64_t span = 0; span < range.num_spans; ++span) {
      tasks_.push_back({&range, range.first_span + span, 1});
    }
  }
}

void AttentionRunner::RunTask(const Call& call, const Task& task, float* memory,
                              float* partials) const {
  const int64_t partial_floats = PartialFloats(call.padded_dim);
  const TileRange& range = *task.range;
  const AttentionTile tile = MakeTile(call, range, memory);
  memory += TileFloats(*call.kernels, call.kv->layout());
  const bool whole = range.first_partial < 0;
  const int64_t partial = range.first_partial + task.first_span - range.first_span;
  const AttentionPartial total = PartialIn(whole ? memory : partials + partial * partial_floats);
  const AttentionPartial next = PartialIn(memory + partial_floats);
  for (int64_t span = 0; span < task.num_spans; ++span) {
    const int64_t begin = (task.first_span + span) * kSpanTokens;
    call.kernels->attend(tile, begin, begin + kSpanTokens, span == 0 ? total : next);
    if (span > 0) call.kernels->merge(next, range.count, call.padded_dim, total);
  }
  if (whole) FinishTile(call, range, total);
}

void AttentionRunner::MergeSpans(const Call& call, const TileRange& range, float* partials) const {
  const int64_t partial_floats = PartialFloats(call.padded_dim);
  float* first = partials + range.first_partial * partial_floats;
  for (int64_t span = 1; span < range.num_spans; ++span) {
    call.kernels->merge(PartialIn(first + span * partial_floats), range.count, call.padded_dim,
                        PartialIn(first));
  }
  FinishTile(call, range, PartialIn(first));
}

AttentionTile AttentionRunner::MakeTile(const Call& call, const TileRange& range,
                                        float* memory) const {
  const AttentionArgs& args = *call.args;
  const AttentionSequence& sequence = *range.sequence;
  AttentionTile tile;
  tile.pages = {call.kv->Page(args.layer, range.kv_head), call.kv->block_stride_bytes(),
                sequence.blocks.data(), call.kv->layout()};
  tile.num_rows = range.count;
  tile.num_gates = sequence.key_gates.cols;
  tile.scores = memory;
  char* queries = reinterpret_cast<char*>(memory + kTileRows * kPieceTokens);
  const int64_t query_bytes = call.kernels->query_bytes(call.kv->layout());
  tile.q = queries;
  tile.piece = queries + kTileRows * query_bytes;
  for (int64_t r = 0; r < range.count; ++r) {
    const int64_t row = sequence.row_begin + (range.first + r) / call.group;
    const int64_t head = range.kv_head * call.group + (range.first + r) % call.group;
    tile.position[r] = PositionOf(sequence, row - sequence.row_begin);
    tile.first_key[r] = FirstKey(args, sequence, tile.position[r]);
    if (tile.num_gates > 0) tile.gates[r] = sequence.key_gates.Row(row - sequence.row_begin);
    call.kernels->scale_query(args.qkv.Row(row) + head * call.head_dim, call.head_dim,
                              args.scale * kLog2E, call.kv->layout(), queries + r * query_bytes);
  }
  return tile;
}

void AttentionRunner::FinishTile(const Call& call, const TileRange& range,
                                 const AttentionPartial& total) const {
  const ActivationRows& out = call.args->out;
  const bool bf16 = out.dtype == DType::kBF16;
  for (int64_t r = 0; r < range.count; ++r) {
    const int64_t row = range.sequence->row_begin + (range.first + r) / call.group;
    const int64_t head = range.kv_head * call.group + (range.first + r) % call.group;
    const int64_t index = row * out.stride + head * call.head_dim;
    char* values = static_cast<char*>(out.data) + index * (bf16 ? 2 : 4);
    call.kernels->finish(total, r, call.kv->layout(), call.head_dim, bf16, values);
  }
}

float* AttentionRunner::Reserve(std::vector<Line>& memory, int64_t num_floats) const {
  const auto lines = static_cast<size_t>(std::max<int64_t>(1, (num_floats + 15) / 16));
  if (memory.size() < lines) memory.resize(lines);
  return memory.front().values;
}

}  // namespace polyad::cpu
