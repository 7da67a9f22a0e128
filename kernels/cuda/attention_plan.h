#pragma once

// Attention of one step: which blocks do what. A row here is one query head of one token; the rows
// of a token and kv head, then those of the next token, count from 0 within a sequence, so that a
// tile of 16 is full of heads in decoding and of tokens in a prefill. Keys are cut into spans at
// fixed positions. A sequence of one tile gets an item for each kv head and span (decoding, split
// over its context); a longer one an item for each kv head and four tiles, with all their spans.
// Items leave partial results in slots, which are merged in order (paged_attention.cuh). Pure;
// copied to the device by the caller.

#include <cstdint>
#include <span>
#include <vector>

namespace polyad::cuda {

inline constexpr int kAttentionTile = 16;   // rows of a warp
inline constexpr int kAttentionWarps = 4;   // of an item of many tiles
inline constexpr int kAttentionSpan = 256;  // keys

// As AttentionSequence of kernels/api/backend.h; pointers into device memory.
struct DeviceSequence {
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t context_end = 0;
  int32_t first_key = 0;
  const int32_t* blocks = nullptr;
  const float* gates = nullptr;  // [row_end - row_begin, gate_cols] or null
  int32_t gate_cols = 0;
  int64_t gate_stride = 0;
  // Set by the plan: slot s of head h of its token i is partial + (i * num_heads + h) * slots + s.
  int32_t slots = 0;
  int64_t partial = 0;
};

struct AttentionItem {
  int32_t sequence = 0;
  int32_t kv_head = 0;
  int32_t row = 0;
  int32_t rows = 0;
  int32_t key_begin = 0;  // keys that some of its rows see
  int32_t key_end = 0;
  int32_t slot = 0;
};

// Where one token's partial results are: head h's begin at partial + h * slots.
struct MergeItem {
  int32_t row = 0;  // of all tokens of the step
  int32_t slots = 0;
  int64_t partial = 0;
};

struct AttentionHeads {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t window = 0;  // 0: none
};

struct AttentionPlan {
  std::vector<DeviceSequence> sequences;
  std::vector<AttentionItem> items;  // those of one tile, then those of up to four
  int64_t num_few = 0;               // the former
  std::vector<MergeItem> merges;
  int64_t num_partials = 0;
};

AttentionPlan PlanAttention(std::span<const DeviceSequence> sequences, const AttentionHeads& heads);

}  // namespace polyad::cuda
