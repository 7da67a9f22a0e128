#include "kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/api/check.h"
#include "kernels/api/kv_shape.h"
#include "kernels/cpu/choose_row_kernels.h"
#include "kernels/cpu/delta.h"
#include "kernels/cpu/gated_prefix.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kv_storage.h"
#include "kernels/cpu/packed_memory.h"

namespace polyad::cpu {
namespace {

// Values a task should touch at least: about 4 us of work, against 1 us to hand it out.
constexpr int64_t kTaskValues = 8192;

RowKernels KernelsFor(Isa isa, ComputeMode mode) {
  RowKernels kernels = RowKernelsOf(isa);
  if (isa == Isa::kAmx && mode != ComputeMode::kF32) {
    kernels.attention = amx::MakeAttentionKernels();
    kernels.coded_attention = amx::MakeCodedAttentionKernels();
  }
  return kernels;
}

char* RowOf(const ActivationRows& rows, int64_t row) {
  return static_cast<char*>(rows.data) + row * rows.stride * InfoOf(rows.dtype).block_bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CpuBackend>> CpuBackend::Create(const BackendOptions& options) {
  const absl::StatusOr<Isa> isa = ChooseIsa(options.isa);
  if (!isa.ok()) return isa.status();
  return std::unique_ptr<CpuBackend>(new CpuBackend(options, *isa));
}

CpuBackend::CpuBackend(const BackendOptions& options, Isa isa)
    : mode_(options.mode),
      isa_(isa),
      kernels_(KernelsFor(isa, options.mode)),
      pool_(options.num_threads),
      attention_(kernels_.attention, kernels_.coded_attention, pool_) {}

BackendInfo CpuBackend::info() const {
  return {"cpu", std::string(NameOf(isa_)), pool_.num_threads()};
}

DType CpuBackend::activation_dtype() const {
  return mode_ == ComputeMode::kF32 ? DType::kF32 : DType::kBF16;
}

absl::StatusOr<std::shared_ptr<void>> CpuBackend::Allocate(int64_t bytes) {
  absl::StatusOr<std::shared_ptr<char>> memory = AllocatePacked(bytes);
  if (!memory.ok()) return memory.status();
  return std::shared_ptr<void>(*std::move(memory));
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> CpuBackend::PackMatrix(
    std::span<const TensorView> parts) {
  return PackMatrixCpu(parts, mode_, isa_, nullptr);
}

absl::StatusOr<std::unique_ptr<PackedDelta>> CpuBackend::PackDelta(const DeltaOp& op,
                                                                   PackShare& share) {
  return PackDeltaCpu(op, mode_, isa_, share);
}

absl::StatusOr<std::unique_ptr<KvStorage>> CpuBackend::AllocateKv(const KvShape& shape,
                                                                  int64_t num_blocks) {
  const absl::StatusOr<KvShape> settled = SettleKvShape(shape, mode_);
  if (!settled.ok()) return settled.status();
  return CpuKvStorage::Create(*settled, num_blocks);
}

absl::StatusOr<int64_t> CpuBackend::KvBlockBytes(const KvShape& shape) const {
  const absl::StatusOr<KvShape> settled = SettleKvShape(shape, mode_);
  if (!settled.ok()) return settled.status();
  return CpuKvStorage::BlockBytes(*settled);
}

void CpuBackend::ForRows(int64_t num_rows, int64_t row_cost, absl::FunctionRef<void(int64_t)> fn) {
  const int64_t per_task = std::max<int64_t>(1, kTaskValues / std::max<int64_t>(1, row_cost));
  pool_.Run((num_rows + per_task - 1) / per_task, [&](int64_t task, int) {
    const int64_t end = std::min(num_rows, (task + 1) * per_task);
    for (int64_t row = task * per_task; row < end; ++row) fn(row);
  });
}

void CpuBackend::Embed(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) {
  KERNEL_CHECK(table.in() == out.cols && out.rows == static_cast<int64_t>(ids.size()),
               "embed shapes");
  ForRows(out.rows, 4 * out.cols,
          [&](int64_t row) { UnpackRow(table, ids[static_cast<size_t>(row)], out.Row(row)); });
}

void CpuBackend::AddRows(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) {
  KERNEL_CHECK(table.in() == out.cols && out.rows == static_cast<int64_t>(ids.size()),
               "embed shapes");
  std::vector<float> row_values(
      static_cast<size_t>(out.cols));  // few rows of few models: one thread
  for (int64_t row = 0; row < out.rows; ++row) {
    UnpackRow(table, ids[static_cast<size_t>(row)], row_values.data());
    kernels_.add(row_values.data(), out.Row(row), out.cols);
  }
}

void CpuBackend::Norm(const NormArgs& args, FloatRows x, ActivationRows y) {
  KERNEL_CHECK(x.rows == y.rows && x.cols == y.cols, "norm shapes");
  const NormRow row_args{args.kind, y.dtype == DType::kBF16, args.eps, args.weight, args.bias,
                         x.cols};
  ForRows(x.rows, x.cols, [&](int64_t row) { kernels_.norm(row_args, x.Row(row), RowOf(y, row)); });
}

void CpuBackend::ProductOfRows(const PackedMatrix& weight, int64_t first_row, FloatRows x,
                               FloatRows y) {
  std::vector<float> memory(static_cast<size_t>(x.rows * x.cols));  // room for either dtype
  const ActivationRows inputs{memory.data(), activation_dtype(), x.rows, x.cols, x.cols};
  Convert(x, inputs);
  ProductOfRowsCpu(weight, first_row, inputs, y);
}

void CpuBackend::Gemm(const GemmArgs& args, ActivationRows x, FloatRows y) {
  GemmCpu(args, x, y, pool_);
}

void CpuBackend::RotateAndStore(const QkvArgs& args) {
  const KvShape& shape = static_cast<const CpuKvStorage&>(*args.kv).shape();
  KERNEL_CHECK(args.qkv.cols == (args.num_heads + 2 * shape.num_kv_heads) * shape.head_dim,
               "qkv width");
  ForRows(args.qkv.rows, args.qkv.cols, [&](int64_t row) { RotateAndStoreRow(args, row); });
}

void CpuBackend::RotateAndStoreRow(const QkvArgs& args, int64_t row) const {
  const auto& kv = static_cast<const CpuKvStorage&>(*args.kv);
  const int64_t dim = kv.shape().head_dim;
  const int64_t num_kv_heads = kv.shape().num_kv_heads;
  const int64_t half = args.rope.rotary_dim / 2;
  const int64_t table_row = args.positions[static_cast<size_t>(row)] * half;
  RotateHead rotate{
      dim, args.q_norm, args.norm_eps, args.rope.cos + table_row, args.rope.sin + table_row, half};
  float* q = args.qkv.Row(row);
  for (int64_t head = 0; head < args.num_heads; ++head) kernels_.rotate(rotate, q + head * dim);
  const int64_t slot = args.slots[static_cast<size_t>(row)];
  if (slot < 0) return;
  rotate.norm = args.k_norm;
  const PageToken at{kv.layout(), dim, slot % kBlock};
  for (int64_t head = 0; head < num_kv_heads; ++head) {
    float* k = q + (args.num_heads + head) * dim;
    kernels_.rotate(rotate, k);
    kernels_.store_token(at, k, k + num_kv_heads * dim,
                         kv.Page(args.layer, head) + slot / kBlock * kv.block_stride_bytes());
  }
}

void CpuBackend::Attention(const AttentionArgs& args) { attention_.Run(args); }

void CpuBackend::AddGatedPrefix(const GatedPrefixArgs& args) {
  const int64_t width = args.num_heads * args.head_dim;
  KERNEL_CHECK(args.kv.rows > 0 && args.kv.cols == 2 * args.num_kv_heads * args.head_dim,
               "prefix shape");
  KERNEL_CHECK(args.q.rows == args.out.rows && args.q.cols == width && args.out.cols == width,
               "gated prefix rows");
  ForRows(args.q.rows, 2 * args.kv.rows * width, [&](int64_t row) {
    std::vector<float> scratch;
    AddGatedPrefixRow(args, row, scratch);
  });
}

void CpuBackend::Activate(ActivationKind kind, bool gated, FloatRows x, ActivationRows y) {
  KERNEL_CHECK(x.rows == y.rows && x.cols == (gated ? 2 * y.cols : y.cols), "activation shapes");
  const ActivateRow args{kind, gated, y.dtype == DType::kBF16, y.cols};
  ForRows(x.rows, 2 * x.cols,
          [&](int64_t row) { kernels_.activate(args, x.Row(row), RowOf(y, row)); });
}

void CpuBackend::GatherRows(FloatRows x, std::span<const int32_t> rows, FloatRows out) {
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(x.Row(rows[i]), x.cols, out.Row(static_cast<int64_t>(i)));
  }
}

void CpuBackend::ArgMax(FloatRows logits, std::span<TokenScore> best) {
  ForRows(logits.rows, logits.cols, [&](int64_t row) {
    const int64_t token = kernels_.argmax(logits.Row(row), logits.cols);
    best[static_cast<size_t>(row)] = {static_cast<int32_t>(token), logits.Row(row)[token]};
  });
}

void CpuBackend::Apply(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y) {
  ApplyCpu(segments, x, y, pool_);
}

void CpuBackend::TransformInput(std::span<const DeltaSegment> segments, ActivationRows x) {
  TransformInputCpu(segments, x, pool_);
}

void CpuBackend::TransformOutput(std::span<const DeltaSegment> segments, FloatRows y) {
  TransformOutputCpu(segments, y, pool_);
}

void CpuBackend::TransformEmbedding(std::span<const DeltaSegment> segments,
                                    std::span<const int32_t> ids, FloatRows rows) {
  TransformEmbeddingCpu(segments, ids, rows, pool_);
}

void CpuBackend::Copy(FloatRows from, FloatRows to) {
  KERNEL_CHECK(from.rows == to.rows && from.cols == to.cols, "copy shapes");
  for (int64_t row = 0; row < from.rows; ++row) std::copy_n(from.Row(row), from.cols, to.Row(row));
}

void CpuBackend::Copy(ActivationRows from, ActivationRows to) {
  KERNEL_CHECK(from.rows == to.rows && from.cols == to.cols && from.dtype == to.dtype,
               "copy shapes");
  const auto bytes = static_cast<size_t>(from.cols * InfoOf(from.dtype).block_bytes);
  for (int64_t row = 0; row < from.rows; ++row) {
    std::memcpy(RowOf(to, row), RowOf(from, row), bytes);
  }
}

void CpuBackend::Convert(FloatRows from, ActivationRows to) {
  KERNEL_CHECK(from.rows == to.rows && from.cols == to.cols, "convert shapes");
  for (int64_t row = 0; row < from.rows; ++row) {
    if (to.dtype == DType::kF32) {
      std::copy_n(from.Row(row), from.cols, reinterpret_cast<float*>(RowOf(to, row)));
      continue;
    }
    kernels_.site.narrow(from.Row(row), reinterpret_cast<uint16_t*>(RowOf(to, row)), from.cols);
  }
}

void CpuBackend::Zero(FloatRows rows) {
  for (int64_t row = 0; row < rows.rows; ++row) std::fill_n(rows.Row(row), rows.cols, 0.0f);
}

void CpuBackend::Accumulate(FloatRows x, FloatRows y) {
  KERNEL_CHECK(x.rows == y.rows && x.cols == y.cols, "accumulate shapes");
  for (int64_t row = 0; row < x.rows; ++row) kernels_.add(x.Row(row), y.Row(row), x.cols);
}

}  // namespace polyad::cpu
