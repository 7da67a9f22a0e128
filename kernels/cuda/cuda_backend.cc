#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"
#include "kernels/api/check.h"
#include "kernels/api/kv_shape.h"
#include "kernels/cuda/draw_tokens.cuh"
#include "kernels/cuda/kv_pool.h"
#include "kernels/cuda/packed_weight.h"
#include "kernels/cuda/plain_matrix.h"
#include "kernels/cuda/row_ops.cuh"

namespace polyad::cuda {
namespace {

constexpr size_t kMaxKeptVectors = 16384;

const CudaMatrix& MatrixOf(const PackedMatrix& weight) {
  return static_cast<const CudaMatrix&>(weight);
}

// How many of the segments, from the first on, are ops of one kind.
size_t RunOf(std::span<const DeltaSegment> segments) {
  size_t count = 1;
  const auto kind = OpOf(segments[0]).kind();
  while (count < segments.size() && OpOf(segments[count]).kind() == kind) ++count;
  return count;
}

}  // namespace

CudaBackend::CudaBackend(ComputeMode mode, std::unique_ptr<Device> device,
                         std::unique_ptr<PlainProducts> products, std::string why_own,
                         int64_t graph_rows)
    : mode_(mode),
      device_(std::move(device)),
      products_(std::move(products)),
      why_own_(std::move(why_own)),
      queue_(*device_, QueueKind::kEngine, {.max_rows = graph_rows}),
      loader_queue_(*device_, QueueKind::kLoader) {}

CudaBackend::~CudaBackend() = default;

BackendInfo CudaBackend::info() const {
  std::string device = device_->name();
  if (products_ != nullptr) {
    absl::StrAppendFormat(&device, ", %s", products_->Describe());
  } else if (!why_own_.empty()) {
    absl::StrAppendFormat(&device, ", own products (%s)", why_own_);
  }
  return {"cuda", device, 1};
}

absl::StatusOr<std::shared_ptr<void>> CudaBackend::Allocate(int64_t bytes) {
  void* memory = device_->Allocate(Memory::kShared, std::max<int64_t>(bytes, 1));
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(absl::StrFormat("the device refused %d bytes", bytes));
  }
  return std::shared_ptr<void>(memory, [this](void* own) { device_->Free(Memory::kShared, own); });
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> CudaBackend::PackMatrix(
    std::span<const TensorView> parts) {
  if (products_ != nullptr && !exact() && PlainMatrix::Takes(parts)) {
    absl::StatusOr<std::unique_ptr<PackedMatrix>> packed = PackForLibrary(parts);
    if (!packed.ok() || *packed != nullptr) return packed;
  }
  return TiledMatrix::Pack(*device_, parts, exact());
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> CudaBackend::PackForLibrary(
    std::span<const TensorView> parts) {
  const PlainShape shape = PlainMatrix::ShapeOf(parts);
  if (products_->IsRefused(shape)) return std::unique_ptr<PackedMatrix>();
  absl::StatusOr<std::unique_ptr<PlainMatrix>> packed =
      PlainMatrix::Pack(*device_, parts, *products_);
  if (!packed.ok()) return packed.status();
  const std::lock_guard lock(loader_mutex_);
  const std::optional<MatmulAlgorithm> algorithm =
      products_->Choose(shape, (*packed)->rows(), *device_);
  if (!algorithm.has_value()) return std::unique_ptr<PackedMatrix>();
  (*packed)->Use(*algorithm);
  return std::unique_ptr<PackedMatrix>(*std::move(packed));
}

absl::StatusOr<std::unique_ptr<PackedDelta>> CudaBackend::PackDelta(const DeltaOp& op, PackShare&) {
  return PackOp(*device_, op, exact());
}

absl::StatusOr<int64_t> CudaBackend::KvBlockBytes(const KvShape& shape) const {
  const absl::StatusOr<KvShape> settled = SettleKvShape(shape, mode_);
  if (!settled.ok()) return settled.status();
  return CudaKv::BlockBytes(*settled);
}

absl::StatusOr<std::unique_ptr<KvStorage>> CudaBackend::AllocateKv(const KvShape& shape,
                                                                   int64_t num_blocks) {
  const absl::StatusOr<KvShape> settled = SettleKvShape(shape, mode_);
  if (!settled.ok()) return settled.status();
  return CudaKv::Create(*settled, num_blocks, queue_);
}

// Rows go to the device and back: x and y are the loader's own memory.
void CudaBackend::ProductOfRows(const PackedMatrix& weight, int64_t first_row, FloatRows x,
                                FloatRows y) {
  std::vector<float> packed;
  for (int64_t row = 0; row < x.rows; ++row) {
    packed.insert(packed.end(), x.Row(row), x.Row(row) + x.cols);
  }
  std::vector<float> result(static_cast<size_t>(y.rows * y.cols));
  {
    const std::lock_guard lock(loader_mutex_);
    loader_queue_.Begin();
    const int64_t stride = RoundUp(x.cols, kRowElements);
    const DeviceRows<const float> from{loader_queue_.Put(packed), x.rows, x.cols, x.cols};
    const simt::LaunchShape shape{x.rows, kRowThreads};
    ActivationRows inputs{nullptr, activation_dtype(), x.rows, x.cols, stride};
    if (exact()) {
      inputs.data = loader_queue_.Scratch<float>(x.rows * stride);
      simt::Launch(shape, loader_queue_.stream(), MoveRows<float, float>, Move::kCopy, from,
                   RowsOf<float>(inputs));
    } else {
      inputs.data = loader_queue_.Scratch<simt::Bf16>(x.rows * stride);
      simt::Launch(shape, loader_queue_.stream(), MoveRows<float, simt::Bf16>, Move::kCopy, from,
                   RowsOf<simt::Bf16>(inputs));
    }
    const FloatRows out{loader_queue_.Scratch<float>(y.rows * y.cols), y.rows, y.cols, y.cols};
    MatrixOf(weight).ProductOfRows(first_row, InputRows(loader_queue_, inputs), out, loader_queue_);
    device_->Copy(QueueKind::kLoader, result.data(), out.data,
                  static_cast<int64_t>(result.size() * sizeof(float)));
    loader_queue_.Wait();
  }
  for (int64_t row = 0; row < y.rows; ++row) {
    std::copy_n(result.data() + row * y.cols, y.cols, y.Row(row));
  }
}

const float* CudaBackend::Kept(const float* values, int64_t count) {
  if (values == nullptr || count == 0 || device_->Reaches(values)) return values;
  if (kept_.size() >= kMaxKeptVectors) {
    queue_.Wait();
    kept_.clear();
  }
  KeptVector& kept = kept_[{values, count}];
  const auto bytes = static_cast<size_t>(count) * sizeof(float);
  if (kept.on_device != nullptr && std::memcmp(kept.values.data(), values, bytes) == 0) {
    return kept.on_device;
  }
  if (kept.on_device != nullptr) queue_.Wait();  // calls may read the old ones
  // What is freed for it is freed once recorded launches are queued.
  queue_.Submit();
  kept.values.assign(values, values + count);
  kept.memory = std::make_unique<DeviceMemory>(*device_);
  kept.on_device = kept.memory->Keep(kept.values);
  KERNEL_CHECK(!kept.memory->refused(), "the device has no room for a vector");
  return kept.on_device;
}

// The first call of a step.
void CudaBackend::Embed(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) {
  queue_.BeginStep(out.rows);
  MatrixOf(table).Embed(queue_.Put(ids), /*adds=*/false, out, queue_);
}

void CudaBackend::AddRows(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) {
  queue_.Begin();
  MatrixOf(table).Embed(queue_.Put(ids), /*adds=*/true, out, queue_);
}

void CudaBackend::Norm(const NormArgs& args, FloatRows x, ActivationRows y) {
  queue_.Begin();
  const NormRowArgs own{args.kind == NormKind::kRms, args.eps, Kept(args.weight, x.cols),
                        Kept(args.bias, x.cols), ConstRowsOf(x)};
  const simt::LaunchShape shape{x.rows, kRowThreads};
  if (y.dtype == DType::kF32) {  // hooks norm fp32 rows in either mode
    simt::Launch(shape, queue_.stream(), NormRows<float>, own, RowsOf<float>(y));
  } else {
    simt::Launch(shape, queue_.stream(), NormRows<simt::Bf16>, own, RowsOf<simt::Bf16>(y));
  }
}

void CudaBackend::Gemm(const GemmArgs& args, ActivationRows x, FloatRows y) {
  queue_.Begin();
  const float* bias = Kept(args.bias, y.cols);
  MatrixOf(*args.weight).Gemm(InputRows(queue_, x), bias, args.accumulate, y, queue_);
  ApplySegments(args.deltas, x, y);
}

void CudaBackend::RotateAndStore(const QkvArgs& args) {
  queue_.Begin();
  const int64_t dim = static_cast<const CudaKv&>(*args.kv).shape().head_dim;
  const float* q_norm = Kept(args.q_norm, dim);
  RotateAndStoreOnDevice(args, q_norm, Kept(args.k_norm, dim), queue_);
}

void CudaBackend::Attention(const AttentionArgs& args) {
  queue_.Begin();
  AttendOnDevice(args, queue_);
}

void CudaBackend::AddGatedPrefix(const GatedPrefixArgs& args) {
  queue_.Begin();
  AddGatedPrefixOnDevice(args, Kept(args.gate, args.num_heads), queue_);
}

void CudaBackend::Activate(ActivationKind kind, bool gated, FloatRows x, ActivationRows y) {
  queue_.Begin();
  const simt::LaunchShape shape{x.rows, kRowThreads};
  if (y.dtype == DType::kF32) {
    simt::Launch(shape, queue_.stream(), ActivateRows<float>, kind, gated, ConstRowsOf(x),
                 RowsOf<float>(y));
  } else {
    simt::Launch(shape, queue_.stream(), ActivateRows<simt::Bf16>, kind, gated, ConstRowsOf(x),
                 RowsOf<simt::Bf16>(y));
  }
}

void CudaBackend::GatherRows(FloatRows x, std::span<const int32_t> rows, FloatRows out) {
  queue_.Begin();
  simt::Launch({static_cast<int64_t>(rows.size()), kRowThreads}, queue_.stream(), GatherFloatRows,
               ConstRowsOf(x), queue_.Put(rows), RowsOf(out));
}

void CudaBackend::ArgMax(FloatRows logits, std::span<TokenScore> best) {
  queue_.BeginAfterStep();
  Scored* scored = queue_.Scratch<Scored>(logits.rows);
  simt::Launch({logits.rows, kRowThreads}, queue_.stream(), ArgMaxRows, ConstRowsOf(logits),
               scored);
  std::vector<Scored> found(best.size());
  device_->Copy(QueueKind::kEngine, found.data(), scored,
                static_cast<int64_t>(found.size() * sizeof(Scored)));
  queue_.Wait();
  for (size_t i = 0; i < best.size(); ++i) best[i] = {found[i].index, found[i].value};
}

void CudaBackend::Draw(FloatRows logits, std::span<const DrawArgs> draws,
                       std::span<int32_t> tokens) {
  std::fill(tokens.begin(), tokens.end(), -1);
  if (draws.empty() || logits.cols > kMaxDrawCols) return;
  queue_.BeginAfterStep();
  int32_t* drawn = queue_.Scratch<int32_t>(static_cast<int64_t>(draws.size()));
  simt::Launch({static_cast<int64_t>(draws.size()), kDrawThreads}, queue_.stream(), DrawTokens,
               ConstRowsOf(logits), queue_.Put(draws), drawn);
  device_->Copy(QueueKind::kEngine, tokens.data(), drawn,
                static_cast<int64_t>(tokens.size_bytes()));
  queue_.Wait();
}

void CudaBackend::Apply(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y) {
  queue_.Begin();
  ApplySegments(segments, x, y);
}

void CudaBackend::ApplySegments(std::span<const DeltaSegment> segments, ActivationRows x,
                                FloatRows y) {
  if (segments.empty()) return;
  const InputRows input(queue_, x);
  while (!segments.empty()) {
    const auto run = segments.first(RunOf(segments));
    OpOf(run[0]).Apply(run, input, y, queue_);
    segments = segments.subspan(run.size());
  }
}

void CudaBackend::TransformInput(std::span<const DeltaSegment> segments, ActivationRows x) {
  queue_.Begin();
  for (const DeltaSegment& segment : segments) {
    OpOf(segment).TransformInput(segment, InputRows(queue_, x), x, queue_);
  }
}

void CudaBackend::TransformOutput(std::span<const DeltaSegment> segments, FloatRows y) {
  queue_.Begin();
  for (const DeltaSegment& segment : segments) OpOf(segment).TransformOutput(segment, y, queue_);
}

void CudaBackend::TransformEmbedding(std::span<const DeltaSegment> segments,
                                     std::span<const int32_t> ids, FloatRows rows) {
  queue_.Begin();
  const int32_t* on_device = queue_.Put(ids);
  for (const DeltaSegment& segment : segments) {
    OpOf(segment).TransformEmbedding(segment, on_device, rows, queue_);
  }
}

template <typename From, typename To>
void CudaBackend::MoveAll(Move move, DeviceRows<const From> from, DeviceRows<To> to) {
  queue_.Begin();
  simt::Launch({to.rows, kRowThreads}, queue_.stream(), MoveRows<From, To>, move, from, to);
}

void CudaBackend::Copy(FloatRows from, FloatRows to) {
  MoveAll(Move::kCopy, ConstRowsOf(from), RowsOf(to));
}
void CudaBackend::Copy(ActivationRows from, ActivationRows to) {
  if (to.dtype == DType::kF32) {
    MoveAll(Move::kCopy, ConstRowsOf<float>(from), RowsOf<float>(to));
  } else {
    MoveAll(Move::kCopy, ConstRowsOf<simt::Bf16>(from), RowsOf<simt::Bf16>(to));
  }
}
void CudaBackend::Convert(FloatRows from, ActivationRows to) {
  if (to.dtype == DType::kF32) {
    MoveAll(Move::kCopy, ConstRowsOf(from), RowsOf<float>(to));
  } else {
    MoveAll(Move::kCopy, ConstRowsOf(from), RowsOf<simt::Bf16>(to));
  }
}
void CudaBackend::Zero(FloatRows rows) { MoveAll(Move::kZero, ConstRowsOf(rows), RowsOf(rows)); }
void CudaBackend::Accumulate(FloatRows x, FloatRows y) {
  MoveAll(Move::kAdd, ConstRowsOf(x), RowsOf(y));
}

}  // namespace polyad::cuda
