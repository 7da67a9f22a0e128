#include "kernels/cuda/kv_pool.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/api/check.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/gated_prefix.cuh"
#include "kernels/cuda/packed_op.h"
#include "kernels/cuda/paged_attention.cuh"
#include "kernels/cuda/rotate_store.cuh"

namespace polyad::cuda {
namespace {

constexpr int64_t kMaxHeadDim = 256;

const CudaKv& KvOf(const KvStorage& kv) { return static_cast<const CudaKv&>(kv); }

// The tables' rows of the tokens' positions, one after the other.
std::vector<float> RowsAt(const float* table, int64_t width, std::span<const int32_t> positions) {
  std::vector<float> rows;
  rows.reserve(positions.size() * static_cast<size_t>(width));
  for (const int32_t position : positions) {
    const float* row = table + position * width;
    rows.insert(rows.end(), row, row + width);
  }
  return rows;
}

template <typename T>
void RotateRows(const QkvArgs& args, const float* q_norm, const float* k_norm, CallQueue& queue) {
  RotateArgs<T> own = {};
  own.qkv = RowsOf(args.qkv);
  own.num_heads = static_cast<int32_t>(args.num_heads);
  own.q_norm = q_norm;
  own.k_norm = k_norm;
  own.norm_eps = args.norm_eps;
  own.rotary_dim = static_cast<int32_t>(args.rope.rotary_dim);
  const int64_t width = args.rope.rotary_dim / 2;
  if (width > 0) {
    own.cos = queue.Put(RowsAt(args.rope.cos, width, args.positions));
    own.sin = queue.Put(RowsAt(args.rope.sin, width, args.positions));
  }
  std::vector<int32_t> own_rows(args.positions.size());
  for (size_t i = 0; i < own_rows.size(); ++i) own_rows[i] = static_cast<int32_t>(i);
  own.positions = queue.Put(own_rows);
  own.slots = queue.Put(args.slots);
  own.kv = KvOf(*args.kv).Pages<T>(args.layer);
  simt::Launch({args.qkv.rows, kRotateThreads}, queue.stream(), RotateAndStoreRows<T>, own);
}

std::vector<DeviceSequence> SequencesOf(const AttentionArgs& args, CallQueue& queue) {
  std::vector<int32_t> blocks;
  for (const AttentionSequence& from : args.sequences) {
    blocks.insert(blocks.end(), from.blocks.begin(), from.blocks.end());
  }
  const int32_t* at = queue.Put(blocks);
  std::vector<DeviceSequence> sequences;
  for (const AttentionSequence& from : args.sequences) {
    DeviceSequence to;
    to.row_begin = static_cast<int32_t>(from.row_begin);
    to.row_end = static_cast<int32_t>(from.row_end);
    to.context_end = static_cast<int32_t>(from.context_end);
    to.first_key = static_cast<int32_t>(from.first_key);
    to.blocks = at;
    at += from.blocks.size();
    if (from.key_gates.cols > 0) {
      const FloatRows& gates = from.key_gates;
      to.gates = queue.Reach(gates.data, (gates.rows - 1) * gates.stride + gates.cols);
      to.gate_cols = static_cast<int32_t>(from.key_gates.cols);
      to.gate_stride = from.key_gates.stride;
    }
    sequences.push_back(to);
  }
  return sequences;
}

template <typename T>
void Attend(const AttentionArgs& args, CallQueue& queue) {
  const CudaKv& kv = KvOf(*args.kv);
  const AttentionHeads heads{static_cast<int32_t>(args.num_heads),
                             static_cast<int32_t>(kv.shape().num_kv_heads),
                             static_cast<int32_t>(args.sliding_window)};
  const AttentionPlan plan = PlanAttention(SequencesOf(args, queue), heads);
  const KvPages<T> pages = kv.Pages<T>(args.layer);
  const int dims = SummedDims(pages);
  const AttentionKernelArgs<T> own{queue.Put(plan.sequences),
                                   queue.Put(plan.items),
                                   heads,
                                   args.scale,
                                   ConstRowsOf(args.qkv),
                                   pages,
                                   queue.Scratch<float>(plan.num_partials * (dims + 2))};
  using Out = std::conditional_t<std::is_same_v<T, float>, float, simt::Bf16>;
  LaunchAttention<T>(plan, own, queue.Put(plan.merges), RowsOf<Out>(args.out), queue.stream());
}

// In the place of T: what pages of the format hold.
template <typename T>
struct PagesOf {
  using Type = T;
};

// call(PagesOf<T>()) by the format.
template <typename Call>
void ByFormat(KvFormat format, const Call& call) {
  switch (format) {
    case KvFormat::kF32:
      return call(PagesOf<float>());
    case KvFormat::kInt8:
      return call(PagesOf<Coded<KvFormat::kInt8>>());
    case KvFormat::kInt4:
      return call(PagesOf<Coded<KvFormat::kInt4>>());
    case KvFormat::kAuto:
    case KvFormat::kBF16:
      return call(PagesOf<simt::Bf16>());
  }
}

absl::Status CheckHasKernels(const KvShape& shape) {
  if (shape.head_dim > kMaxHeadDim) {
    return absl::UnimplementedError(absl::StrFormat(
        "head dim: the CUDA backend takes up to %d, got %d", kMaxHeadDim, shape.head_dim));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int64_t> CudaKv::BlockBytes(const KvShape& shape) {
  const absl::Status status = CheckHasKernels(shape);
  if (!status.ok()) return status;
  return shape.num_layers * LayerBytes(shape);
}

absl::StatusOr<std::unique_ptr<CudaKv>> CudaKv::Create(const KvShape& shape, int64_t num_blocks,
                                                       CallQueue& queue) {
  const absl::StatusOr<int64_t> block_bytes = BlockBytes(shape);
  if (!block_bytes.ok()) return block_bytes.status();
  void* memory = queue.device().Allocate(Memory::kDevice, num_blocks * *block_bytes);
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("K/V pages: the device refused %d bytes", num_blocks * *block_bytes));
  }
  return std::unique_ptr<CudaKv>(new CudaKv(shape, num_blocks, queue, static_cast<char*>(memory)));
}

CudaKv::~CudaKv() { queue_.device().Free(Memory::kDevice, memory_); }

std::vector<StagedPiece> CudaKv::PiecesOf(int64_t block) const {
  const int64_t bytes = LayerBytes(shape_);
  std::vector<StagedPiece> pieces;
  for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
    pieces.push_back({memory_ + (layer * num_blocks_ + block) * bytes, bytes});
  }
  return pieces;
}

// After the launches that wrote the block, which may be recorded ones.
void CudaKv::Save(int64_t block, std::span<char> to) const {
  SIMT_UNLESS("queue.saves_before_what_is_recorded") queue_.Submit();
  SIMT_UNLESS("queue.saves_too_early") queue_.swaps().FollowQueue(QueueKind::kEngine);
  queue_.swaps().Fetch(PiecesOf(block), to.data());
}

// After the launches that read what was there, before those that read it next; the host waits for
// neither.
void CudaKv::Restore(int64_t block, std::span<const char> from) {
  SIMT_UNLESS("queue.restores_before_what_is_recorded") queue_.Submit();
  SIMT_UNLESS("queue.restores_too_early") queue_.swaps().FollowQueue(QueueKind::kEngine);
  queue_.swaps().Send(PiecesOf(block), from.data());
  SIMT_UNLESS("queue.restores_too_late") queue_.swaps().Precede(QueueKind::kEngine);
}

void RotateAndStoreOnDevice(const QkvArgs& args, const float* q_norm, const float* k_norm,
                            CallQueue& queue) {
  ByFormat(args.kv->format(), [&](auto pages) {
    RotateRows<typename decltype(pages)::Type>(args, q_norm, k_norm, queue);
  });
}

void AttendOnDevice(const AttentionArgs& args, CallQueue& queue) {
  ByFormat(args.kv->format(),
           [&](auto pages) { Attend<typename decltype(pages)::Type>(args, queue); });
}

void AddGatedPrefixOnDevice(const GatedPrefixArgs& args, const float* gate, CallQueue& queue) {
  const GatedPrefixRowArgs own{ConstRowsOf(args.q),
                               ConstRowsOf(args.kv),
                               static_cast<int32_t>(args.num_heads),
                               static_cast<int32_t>(args.num_kv_heads),
                               static_cast<int32_t>(args.head_dim),
                               args.scale,
                               gate};
  const simt::LaunchShape shape{args.q.rows, kBlockThreads};
  if (args.out.dtype == DType::kF32) {
    simt::Launch(shape, queue.stream(), AddGatedPrefixRows<float>, own, RowsOf<float>(args.out));
  } else {
    simt::Launch(shape, queue.stream(), AddGatedPrefixRows<simt::Bf16>, own,
                 RowsOf<simt::Bf16>(args.out));
  }
}

}  // namespace polyad::cuda
