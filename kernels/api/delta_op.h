#pragma once

// The algebra that adapters lower to (zoo section 1.1): what a kernel may be asked to do at a site,
// whatever family it came from. With x the site's raw input row:
//
//   y = OutputOps(W InputOps(x) + b) + sum of deltas(x),   then "after" ops, which read y
//
// The base product of a mixed batch stays one call; an op touches its own adapter's rows alone.
// Each op is one struct with its one line of algebra; a new op is a struct here, a double-precision
// reference in kernels/reference, and cases in tests/kernels. Ops borrow their tensors:
// Backend::PackDelta copies them into its own layout, and the views may die then. Matrices are f32,
// f16 or bf16; vectors are f32.

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <tuple>
#include <variant>

#include "kernels/api/activation.h"
#include "kernels/api/precision_bytes.h"
#include "kernels/api/tensor_view.h"

namespace polyad {

// --- deltas: y += op(x) ---

// y += outer * (scale B (inner * (A x))). Ranks are whatever they are: never padded or capped.
// Factors that view the same memory are packed once for a whole adapter (VeRA's shared pair).
struct LowRank {
  TensorView a = {};                  // [rank, in]
  TensorView b = {};                  // [out, rank]
  float scale = 1.0f;                 // applied to b in fp32 while packing
  std::span<const float> inner = {};  // [rank]; empty: ones
  std::span<const float> outer = {};  // [out]; empty: ones
};

// y += scale D x: the universal fallback of weight-space families.
struct Dense {
  TensorView delta = {};  // [out, in]
  float scale = 1.0f;
};

// y[rows[n]] += V[n] . x: few output rows, each dense (row subsets, a head's trained tokens).
struct DenseRows {
  std::span<const int32_t> rows = {};  // [n], ascending, distinct
  TensorView values = {};              // [n, in]
  int64_t out = 0;
};

// y += S x, S in compressed sparse rows.
struct Sparse {
  std::span<const int32_t> row_begin = {};  // [out + 1], ascending from 0 to nnz
  std::span<const int32_t> columns = {};    // [nnz], ascending within a row
  std::span<const float> values = {};       // [nnz]
  int64_t in = 0;
};

// y[o] += sum over groups g of scale[o, g] * sum over i in g of sign[o, i] x[i] (BitDelta: Liu et
// al. 2024, one scale). Bits: u32 words of 32 inputs, least significant first, 1 is +1 and 0 is -1.
struct SignBits {
  std::span<const uint32_t> bits = {};  // [out, ceil(in / 32)]
  std::span<const float> scale = {};    // [1], [out] or [out, groups]
  int64_t out = 0;
  int64_t in = 0;
  int64_t groups =
      1;  // equal runs of inputs, a multiple of 32 each; more than one needs [out, groups]
};

// y += scale (C kron D) x = scale vec(C X D'), X = x as [m, n] row-major.
struct Kronecker {
  TensorView c = {};  // [l, m]
  TensorView d = {};  // [k, n];  out = l k, in = m n
  float scale = 1.0f;
};

// y += b
struct Bias {
  std::span<const float> values = {};  // [out]
};

struct LayerNormWeights {
  std::span<const float> weight = {};  // [n]; empty: no norm
  std::span<const float> bias = {};    // [n]
  float eps = 1e-5f;
};

// y += scale * (U act(D norm(x) + d) + u): a bottleneck adapter (Houlsby et al. 2019). As an input
// op it is x += the same.
struct Bottleneck {
  LayerNormWeights norm = {};             // before D
  TensorView down = {};                   // [width, in]
  std::span<const float> down_bias = {};  // [width] or empty
  ActivationKind activation = ActivationKind::kRelu;
  TensorView up = {};                   // [out, width]
  std::span<const float> up_bias = {};  // [out] or empty
  std::span<const float> scale = {};    // [1] or [out]; empty: one
};

// --- input ops: the base product reads x1 = op(x); deltas go on reading x ---

// x1 = a * x
struct InputScale {
  std::span<const float> values = {};  // [in]
};

// u = x[order]; v = u R, block by block as row vectors; x1[order] = v. One stage of OFT or BOFT.
struct BlockRotation {
  std::span<const int32_t> order = {};  // [in], a permutation; empty: as they stand
  std::span<const float> blocks = {};   // [in / size or 1 (shared by all), size, size]
  int64_t size = 0;
  int64_t in = 0;
};

// --- output ops: y = op(W x1 + b), before any delta ---

// y = c * y
struct OutputScale {
  std::span<const float> values = {};  // [out]
};

// y = f * y + g * rot(y), rot per group of `group` outputs: (-second half, first half) (RoAd: Liao
// and Monz 2024).
struct PairRotation {
  std::span<const float> f = {};  // [out]
  std::span<const float> g = {};  // [out]
  int64_t group = 0;
};

// --- embedding ops: e = op(e, token) for the row just looked up ---

// e = the row given for this token, where there is one.
struct EmbeddingRows {
  std::span<const int32_t> ids = {};  // [n], ascending, distinct
  TensorView rows = {};               // [n, hidden]
};

// e = column_scale * (e + scale B A[:, token])
struct EmbeddingLowRank {
  TensorView a = {};  // [rank, vocab]
  TensorView b = {};  // [hidden, rank]
  float scale = 1.0f;
  std::span<const float> column_scale = {};  // [hidden]; empty: ones
};

using DeltaOp = std::variant<LowRank, Dense, DenseRows, Sparse, SignBits, Kronecker, Bias,
                             Bottleneck, InputScale, BlockRotation, OutputScale, PairRotation,
                             EmbeddingRows, EmbeddingLowRank>;

// What a packed op costs, for the scheduler and the load report.
struct DeltaCost {
  PrecisionBytes bytes;         // resident bytes that this op added (shared factors count once)
  int64_t flops_per_token = 0;  // multiply-adds * 2

  DeltaCost& operator+=(const DeltaCost& other) {
    bytes += other.bytes;
    flops_per_token += other.flops_per_token;
    return *this;
  }
};

// An op in a backend's own layout; immutable, shared by every step that uses it.
class PackedDelta {
 public:
  virtual ~PackedDelta() = default;
  virtual DeltaCost cost() const = 0;
};

// What one adapter has packed so far, so that ops which view the same memory share its packed form.
// Lives while one adapter loads; not thread-safe.
class PackShare {
 public:
  using Key = std::tuple<const void*, int64_t, int64_t, DType, float>;  // data, rows, cols, scale

  std::shared_ptr<const void> Find(const Key& key) const {
    const auto found = packed_.find(key);
    return found == packed_.end() ? nullptr : found->second;
  }
  void Insert(const Key& key, std::shared_ptr<const void> memory) {
    packed_.emplace(key, std::move(memory));
  }

 private:
  std::map<Key, std::shared_ptr<const void>> packed_;
};

// One adapter's op on one run of rows at one site: rows [row_begin, row_end) of x and y, columns
// [y_column, y_column + out) of y (fused projections are column ranges of one output). Deltas are
// multiplied by `scale`, and by row_scale[t - row_begin] where given (a composition's weight, a
// gate's value); other ops ignore both.
struct DeltaSegment {
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t y_column = 0;
  const PackedDelta* op = nullptr;
  float scale = 1.0f;
  const float* row_scale = nullptr;  // [row_end - row_begin] or null
};

}  // namespace polyad
