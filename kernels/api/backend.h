#pragma once

// The contract between the engine and a device: memory, packed weights, the base ops of a decoder
// layer, and deltas. Kernels know ops and rows only: no sequences, no adapters, no families. One
// engine thread calls a Backend; calls return when the result is ready for the next call (a device
// may queue internally). Arguments were validated by the caller: a mismatched shape here is a
// broken invariant (CHECK), except where StatusOr says otherwise.
//
// The invariance promise, which every implementation is tested for first: each output element is
// reduced in one fixed order that depends on shapes and weight format alone, so a row's bits never
// depend on how many rows share the call, on chunking, on which KV blocks hold its context, or on
// the number of threads.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/activation.h"
#include "kernels/api/delta_op.h"
#include "kernels/api/kv_format.h"
#include "kernels/api/precision_bytes.h"
#include "kernels/api/tensor_view.h"

namespace polyad {

// Tokens per KV block, fixed so that kernels may lay keys out for it.
inline constexpr int64_t kBlockTokens = 16;

// f32: everything in fp32 (the exact mode goldens use). bf16: weights as stored, activations and
// K/V bf16. auto: likewise, but activations are rounded to int8 in blocks of 32 on their way into a
// product with integer codes.
enum class ComputeMode { kF32, kBF16, kAuto };

struct BackendOptions {
  ComputeMode mode = ComputeMode::kAuto;
  int num_threads = 0;  // 0: one per available core
  std::string isa =
      "auto";  // auto | scalar | avx2 | avx512 | amx; a level the machine lacks is an error
  std::string cuda_plugin = {};   // path of the CUDA plugin; empty: where plugin_loader.h looks
  int cuda_device = 0;            // in the driver's order; of several ranks the first one's
  int64_t cuda_memory_bytes = 0;  // of the device, at most; 0: all there is
  int64_t cuda_graph_rows = 64;   // of a step that goes to one device as graphs, at most; 0: none
  std::string cuda_products = "own";  // own | auto | cublas: what multiplies by bf16 base weights
  std::function<void(const std::string&)> on_fallback = {};  // told why `auto` takes the CPU
  int num_ranks = 1;  // that weights and K/V are split among (kernels/shard/sharded_backend.h)
};

struct BackendInfo {
  std::string name;  // "cpu", "cuda"
  std::string isa;   // the path chosen or the device, as server info reports it
  int num_threads = 1;
};

// A weight matrix in a backend's own layout: out x in, y = W x.
class PackedMatrix {
 public:
  virtual ~PackedMatrix() = default;
  virtual int64_t out() const = 0;
  virtual int64_t in() const = 0;
  virtual PrecisionBytes bytes() const = 0;
};

// By layer: all blocks of a layer together, in memory from the start. By block: a block's layers
// together, in memory from when it is first written until Discard.
enum class KvPlacement : uint8_t { kByLayer, kByBlock };

struct KvShape {
  int64_t num_layers = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  KvFormat format = KvFormat::kAuto;
  KvPlacement placement = KvPlacement::kByLayer;
};

// All K/V pages of all layers. Blocks are kBlockTokens tokens; block b of layer l is the backend's
// to place.
class KvStorage {
 public:
  virtual ~KvStorage() = default;
  virtual int64_t num_blocks() const = 0;
  virtual int64_t bytes() const = 0;
  virtual KvFormat format() const = 0;  // never kAuto
  // A block's content in all layers, for keeping it elsewhere: block_bytes() of them, to be
  // restored into any block of the same storage.
  virtual int64_t block_bytes() const = 0;
  virtual void Save(int64_t block, std::span<char> to) const = 0;
  virtual void Restore(int64_t block, std::span<const char> from) = 0;
  // Of storage placed by block: how far apart two blocks begin, of the first one's beginning.
  virtual int64_t block_stride() const { return block_bytes(); }
  // Of storage placed by block: gives the memory of bytes [begin, end), counted from the first
  // block and whole huge pages, back to the system. The content of every block that lies there, or
  // partly, is lost. Does nothing where memory cannot be given back.
  virtual void Discard(int64_t begin, int64_t end) {
    static_cast<void>(begin);
    static_cast<void>(end);
  }
};

enum class NormKind { kRms, kLayer };

struct NormArgs {
  NormKind kind = NormKind::kRms;
  float eps = 1e-5f;
  const float* weight = nullptr;  // [cols]
  const float* bias = nullptr;    // [cols] or null
};

struct GemmArgs {
  const PackedMatrix* weight = nullptr;
  const float* bias = nullptr;           // [out] or null
  bool accumulate = false;               // y += W x + b (a residual sink) instead of y =
  std::span<const DeltaSegment> deltas;  // then as Apply does
};

// Rotary tables: cos/sin for one position are the rows of [max_position, rotary_dim / 2] f32 tables
// made by the model. Pairs are half-split: element i rotates with i + rotary_dim/2 (the Hugging
// Face convention).
struct RopeTable {
  const float* cos = nullptr;
  const float* sin = nullptr;
  int64_t rotary_dim = 0;  // 0: no rotation (learned positions)
};

// Splits fused rows [q | k | v] after projection: optional per-head RMS norm of q and k (Qwen3),
// rotation of q (in place) and k, and stores k and v in their cache slots. With num_heads 0, no
// norms and no rotation, it stores rows of [k | v] as they are (prefixes).
struct QkvArgs {
  FloatRows qkv;  // [num_tokens, (num_heads + 2 num_kv_heads) * head_dim]
  int64_t num_heads = 0;
  const float* q_norm = nullptr;  // [head_dim] or null
  const float* k_norm = nullptr;
  float norm_eps = 1e-6f;
  RopeTable rope;
  std::span<const int32_t> positions;  // [num_tokens]
  std::span<const int64_t> slots;  // [num_tokens] block * kBlockTokens + offset; -1 stores nothing
  KvStorage* kv = nullptr;
  int64_t layer = 0;
};

// One sequence's rows in a step: rows [row_begin, row_end) of q are its tokens at positions
// [context_end - (row_end - row_begin), context_end); its keys are positions [0, context_end) in
// `blocks`.
struct AttentionSequence {
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t context_end = 0;
  std::span<const int32_t> blocks;  // block table
  int64_t first_key = 0;  // keys before it are hidden: a prefix that this layer does not have
  // Gates of the first keys, for each of the rows: its score against key j and key j's value count
  // gate j times (APT: Zhang et al. 2023). A multiple of kBlockTokens columns, ones past the
  // prefix; no columns: no gates.
  FloatRows key_gates = {};
};

// Causal attention over paged K/V; keys are visited by absolute position in fixed pieces.
struct AttentionArgs {
  FloatRows qkv;       // q is its first num_heads * head_dim columns
  ActivationRows out;  // [num_tokens, num_heads * head_dim]
  int64_t num_heads = 0;
  float scale = 1.0f;
  int64_t sliding_window = 0;  // 0: none; else a row at p sees keys in (p - window, p]
  std::span<const AttentionSequence> sequences;
  const KvStorage* kv = nullptr;
  int64_t layer = 0;
};

// A second attention beside the causal one, over a few keys that an adapter brings, with a softmax
// of its own (LLaMA-Adapter, Zhang et al. 2023): per row and head h,
//   out[h] += gate[h] * sum_j softmax_j(scale q[h] . k[j, g]) v[j, g],  g = h / (num_heads /
//   num_kv_heads).
struct GatedPrefixArgs {
  FloatRows q;         // [rows, num_heads * head_dim], as RotateAndStore left it
  FloatRows kv;        // [num_keys, 2 * num_kv_heads * head_dim]: keys, then values
  ActivationRows out;  // [rows, num_heads * head_dim]
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 1.0f;
  const float* gate = nullptr;  // [num_heads]
};

struct TokenScore {
  int32_t token_id = 0;
  float logit = 0.0f;
};

// A token to draw from a row of logits: weights are exp((logit - largest) * scale); left are those
// of at least min_p, of them the top_k likeliest, of them the fewest that reach top_p of the
// weight; the token is where the running weight passes `uniform` of the whole.
struct DrawArgs {
  int64_t row = 0;
  float scale = 1.0f;    // 1 / temperature
  float min_p = 0.0f;    // [0, 1]
  int32_t top_k = 0;     // 0: all
  float top_p = 1.0f;    // (0, 1]
  double uniform = 0.0;  // [0, 1)
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual BackendInfo info() const = 0;
  virtual DType activation_dtype()
      const = 0;  // what Norm, Activate and Attention write: kF32 or kBF16

  // --- memory and packing (start-up and loader threads; these five are thread-safe) ---
  // Working memory zero-filled and aligned to 64 bytes, huge pages where offered;
  // RESOURCE_EXHAUSTED when refused.
  virtual absl::StatusOr<std::shared_ptr<void>> Allocate(int64_t bytes) = 0;
  // Stacks the parts along `out` (fused q|k|v, gate|up); parts share `cols`, and their dtype unless
  // one is quantised. kF32 mode decodes to f32.
  virtual absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(
      std::span<const TensorView> parts) = 0;
  // INVALID_ARGUMENT where an op's shapes do not chain. `share` belongs to the adapter being
  // packed.
  virtual absl::StatusOr<std::unique_ptr<PackedDelta>> PackDelta(const DeltaOp& op,
                                                                 PackShare& share) = 0;
  // Bytes of one block in all layers, with what lies between two blocks. INVALID_ARGUMENT: a size
  // out of range, a format that the mode does not go with.
  virtual absl::StatusOr<int64_t> KvBlockBytes(const KvShape& shape) const = 0;
  virtual absl::StatusOr<std::unique_ptr<KvStorage>> AllocateKv(const KvShape& shape,
                                                                int64_t num_blocks) = 0;

  // --- products while an adapter loads (thread-safe, on the calling thread alone) ---
  // y[t] = rows [first_row, first_row + y.cols) of W times x[t], x rounded as Gemm's inputs are.
  virtual void ProductOfRows(const PackedMatrix& weight, int64_t first_row, FloatRows x,
                             FloatRows y) = 0;

  // --- base ops (engine thread) ---
  // out[t] = table[ids[t]] (+ position_table[positions[t]] where given)
  virtual void Embed(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) = 0;
  virtual void AddRows(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) = 0;
  // y[t] = norm(x[t]) in activation precision
  virtual void Norm(const NormArgs& args, FloatRows x, ActivationRows y) = 0;
  // y[t] (+)= W x[t] + b, then y[t] += op(x[t]) for args.deltas: as Apply afterwards, in one go
  virtual void Gemm(const GemmArgs& args, ActivationRows x, FloatRows y) = 0;
  virtual void RotateAndStore(const QkvArgs& args) = 0;
  virtual void Attention(const AttentionArgs& args) = 0;
  virtual void AddGatedPrefix(const GatedPrefixArgs& args) = 0;
  // gated: y[t] = act(x[t][0:n]) * x[t][n:2n];  plain: y[t] = act(x[t])
  virtual void Activate(ActivationKind kind, bool gated, FloatRows x, ActivationRows y) = 0;
  // out[i] = x[rows[i]]
  virtual void GatherRows(FloatRows x, std::span<const int32_t> rows, FloatRows out) = 0;
  // The largest logit of each row, lowest token id on ties: the greedy pick.
  virtual void ArgMax(FloatRows logits, std::span<TokenScore> best) = 0;
  // tokens[i] = the token of draws[i], the one that engine/model/sampler.h draws from the same
  // logits, or -1: the caller draws it. A backend need not draw at all, and draws from no row
  // without a finite largest logit or with a NaN.
  virtual void Draw(FloatRows logits, std::span<const DrawArgs> draws, std::span<int32_t> tokens) {
    static_cast<void>(logits);
    static_cast<void>(draws);
    std::fill(tokens.begin(), tokens.end(), -1);
  }

  // --- adapters' ops (delta_op.h), in the order of `segments` where they overlap ---
  // Deltas and bottlenecks: y[t] += op(x[t]) for t in each segment.
  virtual void Apply(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y) = 0;
  // Input ops in place: x[t] = op(x[t]). Columns are all of x.
  virtual void TransformInput(std::span<const DeltaSegment> segments, ActivationRows x) = 0;
  // Output ops in place: columns [y_column, y_column + out) of y[t] = op(those columns).
  virtual void TransformOutput(std::span<const DeltaSegment> segments, FloatRows y) = 0;
  // Embedding ops in place: rows[t] = op(rows[t], ids[t]).
  virtual void TransformEmbedding(std::span<const DeltaSegment> segments,
                                  std::span<const int32_t> ids, FloatRows rows) = 0;

  // Waits until all calls are done. Memory of Allocate is the host's from then until the next call;
  // before, a device may still read and write it.
  virtual void Finish() {}
  // By the host, which has changed rows of Allocate's memory that later calls read: rows of a step
  // after Finish (engine thread), or rows that no call has read yet (any thread).
  virtual void HostWrote(FloatRows rows) { static_cast<void>(rows); }

  // --- moving rows (an adapter's sub-layer hooks; a few rows of a few adapters) ---
  virtual void Copy(FloatRows from, FloatRows to) = 0;
  virtual void Copy(ActivationRows from, ActivationRows to) = 0;
  virtual void Convert(FloatRows from, ActivationRows to) = 0;  // rounds to the activation dtype
  virtual void Zero(FloatRows rows) = 0;
  virtual void Accumulate(FloatRows x, FloatRows y) = 0;  // y += x
};

}  // namespace polyad
