#include "kernels/cpu/attention.h"

#include <algorithm>

#include "kernels/api/check.h"

namespace polyad::cpu {
namespace {

constexpr float kLog2E = 1.44269504088896341f;
constexpr int64_t kTasksPerThread =
    8;  // enough to even out tiles of unequal length, few enough to be cheap to take

// q, scores, weights and last_block of a tile.
int64_t TileFloats(int64_t padded_dim) {
  return kTileRows * (padded_dim + kPieceTokens + kPieceTokens / 2) + kBlock / 2 * padded_dim;
}

int64_t PartialFloats(int64_t padded_dim) { return 16 + kTileRows * (16 + padded_dim); }

AttentionPartial PartialIn(float* memory) {
  return {memory, memory + 16, memory + 16 + kTileRows * 16};
}

int64_t FirstKey(const AttentionArgs& args, const AttentionSequence& sequence, int64_t position) {
  if (args.sliding_window <= 0) return sequence.first_key;
  return std::max(sequence.first_key, position - args.sliding_window + 1);
}

int64_t NumSpans(int64_t context_end) { return (context_end + kSpanTokens - 1) / kSpanTokens; }

}  // namespace

AttentionRunner::AttentionRunner(const AttentionKernels& kernels, ThreadPool& pool)
    : kernels_(kernels), pool_(pool), worker_memory_(static_cast<size_t>(pool.num_threads())) {}

void AttentionRunner::Run(const AttentionArgs& args) {
  const auto& kv = static_cast<const CpuKvStorage&>(*args.kv);
  const KvShape& shape = kv.shape();
  const Call call{&args, &kv, args.num_heads / shape.num_kv_heads, shape.head_dim,
                  kv.layout().padded_dim};
  KERNEL_CHECK(call.group * shape.num_kv_heads == args.num_heads, "heads per kv head");
  KERNEL_CHECK(args.out.cols == args.num_heads * shape.head_dim, "attention output width");
  CutTiles(call);
  int64_t num_spans = 1;
  for (const AttentionSequence& sequence : args.sequences) {
    KERNEL_CHECK(sequence.key_gates.cols % kBlock == 0, "gates of whole blocks of keys");
    num_spans = std::max(num_spans, NumSpans(sequence.context_end));
  }
  const bool few = static_cast<int64_t>(tiles_.size()) < 2 * pool_.num_threads();
  if (few && num_spans > 1 && pool_.num_threads() > 1) {
    RunSpans(call, num_spans);
  } else {
    RunTiles(call);
  }
}

void AttentionRunner::CutTiles(const Call& call) {
  tiles_.clear();
  for (const AttentionSequence& sequence : call.args->sequences) {
    const int64_t num_heads = (sequence.row_end - sequence.row_begin) * call.group;
    for (int64_t kv_head = 0; kv_head < call.kv->shape().num_kv_heads; ++kv_head) {
      for (int64_t first = 0; first < num_heads; first += kernels_.tile_rows) {
        tiles_.push_back(
            {&sequence, kv_head, first, std::min(kernels_.tile_rows, num_heads - first)});
      }
    }
  }
}

void AttentionRunner::RunTiles(const Call& call) {
  const auto num_tiles = static_cast<int64_t>(tiles_.size());
  const int64_t per_task =
      std::max<int64_t>(1, num_tiles / (pool_.num_threads() * kTasksPerThread));
  const int64_t num_floats = TileFloats(call.padded_dim) + 2 * PartialFloats(call.padded_dim);
  for (std::vector<Line>& memory : worker_memory_) Reserve(memory, num_floats);
  pool_.Run((num_tiles + per_task - 1) / per_task, [&](int64_t task, int worker) {
    const int64_t end = std::min(num_tiles, (task + 1) * per_task);
    for (int64_t i = task * per_task; i < end; ++i) {
      AttendTile(call, tiles_[static_cast<size_t>(i)],
                 worker_memory_[static_cast<size_t>(worker)].front().values);
    }
  });
}

// One task: all spans of a tile in order.
void AttentionRunner::AttendTile(const Call& call, const TileRange& range, float* memory) const {
  const AttentionTile tile = MakeTile(call, range, memory);
  memory += TileFloats(call.padded_dim);
  const AttentionPartial total = PartialIn(memory);
  const AttentionPartial next = PartialIn(memory + PartialFloats(call.padded_dim));
  const int64_t end = tile.position[range.count - 1] + 1;
  int64_t span_begin = tile.first_key[0] / kSpanTokens * kSpanTokens;
  kernels_.attend(tile, span_begin, span_begin + kSpanTokens, total);
  for (span_begin += kSpanTokens; span_begin < end; span_begin += kSpanTokens) {
    kernels_.attend(tile, span_begin, span_begin + kSpanTokens, next);
    kernels_.merge(next, range.count, call.padded_dim, total);
  }
  FinishTile(call, range, total);
}

// One task per tile and span, then each tile's spans are merged in order.
void AttentionRunner::RunSpans(const Call& call, int64_t num_spans) {
  const auto num_tiles = static_cast<int64_t>(tiles_.size());
  const int64_t partial_floats = PartialFloats(call.padded_dim);
  for (std::vector<Line>& memory : worker_memory_) Reserve(memory, TileFloats(call.padded_dim));
  float* partials = Reserve(span_memory_, num_tiles * num_spans * partial_floats);
  pool_.Run(num_tiles * num_spans, [&](int64_t task, int worker) {
    const TileRange& range = tiles_[static_cast<size_t>(task / num_spans)];
    const int64_t span_begin = task % num_spans * kSpanTokens;
    if (span_begin >= range.sequence->context_end) return;
    const AttentionTile tile =
        MakeTile(call, range, worker_memory_[static_cast<size_t>(worker)].front().values);
    kernels_.attend(tile, span_begin, span_begin + kSpanTokens,
                    PartialIn(partials + task * partial_floats));
  });
  for (int64_t i = 0; i < num_tiles; ++i) {
    const TileRange& range = tiles_[static_cast<size_t>(i)];
    float* memory = partials + i * num_spans * partial_floats;
    for (int64_t span = 1; span < NumSpans(range.sequence->context_end); ++span) {
      kernels_.merge(PartialIn(memory + span * partial_floats), range.count, call.padded_dim,
                     PartialIn(memory));
    }
    FinishTile(call, range, PartialIn(memory));
  }
}

AttentionTile AttentionRunner::MakeTile(const Call& call, const TileRange& range,
                                        float* memory) const {
  const AttentionArgs& args = *call.args;
  const AttentionSequence& sequence = *range.sequence;
  AttentionTile tile;
  tile.pages = {call.kv->Page(args.layer, range.kv_head), call.kv->block_stride_bytes(),
                sequence.blocks.data(), call.kv->layout().bf16, call.padded_dim};
  tile.num_rows = range.count;
  tile.num_gates = sequence.key_gates.cols;
  tile.q = memory;
  tile.scores = memory + kTileRows * call.padded_dim;
  tile.weights = reinterpret_cast<uint16_t*>(tile.scores + kTileRows * kPieceTokens);
  tile.last_block = tile.weights + kTileRows * kPieceTokens;
  for (int64_t r = 0; r < range.count; ++r) {
    const int64_t row = sequence.row_begin + (range.first + r) / call.group;
    const int64_t head = range.kv_head * call.group + (range.first + r) % call.group;
    tile.position[r] = sequence.context_end - (sequence.row_end - row);
    tile.first_key[r] = FirstKey(args, sequence, tile.position[r]);
    if (tile.num_gates > 0) tile.gates[r] = sequence.key_gates.Row(row - sequence.row_begin);
    kernels_.scale_query(
        args.qkv.Row(row) + head * call.head_dim, call.head_dim, args.scale * kLog2E,
        reinterpret_cast<char*>(memory) + r * call.padded_dim * kernels_.query_bytes);
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
    kernels_.finish(total, r, call.padded_dim, call.head_dim, bf16, values);
  }
}

float* AttentionRunner::Reserve(std::vector<Line>& memory, int64_t num_floats) const {
  const auto lines = static_cast<size_t>((num_floats + 15) / 16);
  if (memory.size() < lines) memory.resize(lines);
  return memory.front().values;
}

}  // namespace polyad::cpu
