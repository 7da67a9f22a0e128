#include "tests/kernels/cuda/emulated_attention.h"

#include <type_traits>
#include <utility>

#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/gated_prefix.cuh"
#include "kernels/cuda/paged_attention.cuh"
#include "kernels/cuda/rotate_store.cuh"

namespace polyad::test {
namespace {

constexpr uint32_t kNan = 0xffffffffu;  // as one float and as two bf16

const EmulatedKv& KvOf(const KvStorage& kv) { return static_cast<const EmulatedKv&>(kv); }

template <typename T>
void RotateRows(const QkvArgs& args, simt::Stream stream) {
  cuda::RotateArgs<T> own;
  own.qkv = {args.qkv.data, args.qkv.rows, args.qkv.cols, args.qkv.stride};
  own.num_heads = static_cast<int32_t>(args.num_heads);
  own.q_norm = args.q_norm;
  own.k_norm = args.k_norm;
  own.norm_eps = args.norm_eps;
  own.cos = args.rope.cos;
  own.sin = args.rope.sin;
  own.rotary_dim = static_cast<int32_t>(args.rope.rotary_dim);
  own.positions = args.positions.data();
  own.slots = args.slots.data();
  own.kv = KvOf(*args.kv).Pages<T>(args.layer);
  simt::Launch({args.qkv.rows, cuda::kRotateThreads}, stream, cuda::RotateAndStoreRows<T>, own);
}

std::vector<cuda::DeviceSequence> SequencesOf(const AttentionArgs& args) {
  std::vector<cuda::DeviceSequence> sequences;
  for (const AttentionSequence& from : args.sequences) {
    cuda::DeviceSequence to;
    to.row_begin = static_cast<int32_t>(from.row_begin);
    to.row_end = static_cast<int32_t>(from.row_end);
    to.context_end = static_cast<int32_t>(from.context_end);
    to.first_key = static_cast<int32_t>(from.first_key);
    to.blocks = from.blocks.data();
    if (from.key_gates.cols > 0) {
      to.gates = from.key_gates.data;
      to.gate_cols = static_cast<int32_t>(from.key_gates.cols);
      to.gate_stride = from.key_gates.stride;
    }
    sequences.push_back(to);
  }
  return sequences;
}

template <typename T>
void Attend(const AttentionArgs& args, simt::Stream stream) {
  const EmulatedKv& kv = KvOf(*args.kv);
  const cuda::AttentionHeads heads{static_cast<int32_t>(args.num_heads),
                                   static_cast<int32_t>(kv.shape().num_kv_heads),
                                   static_cast<int32_t>(args.sliding_window)};
  const cuda::AttentionPlan plan = cuda::PlanAttention(SequencesOf(args), heads);
  const auto dim = static_cast<int32_t>(kv.shape().head_dim);
  std::vector<float> partials(static_cast<size_t>(plan.num_partials * (dim + 2)));
  const cuda::AttentionKernelArgs<T> own{
      plan.sequences.data(),
      plan.items.data(),
      heads,
      args.scale,
      {args.qkv.data, args.qkv.rows, args.qkv.cols, args.qkv.stride},
      kv.Pages<T>(args.layer),
      partials.data()};
  cuda::LaunchAttention<T>(
      plan, own, plan.merges.data(),
      {static_cast<T*>(args.out.data), args.out.rows, args.out.cols, args.out.stride}, stream);
}

}  // namespace

EmulatedKv::EmulatedKv(const KvShape& shape, std::unique_ptr<KvStorage> reference)
    : shape_(shape), reference_(std::move(reference)) {
  if (!has_kernels()) return;
  const int64_t element_bytes = shape.format == KvFormat::kF32 ? 4 : 2;
  const int64_t bytes = shape.num_layers * LayerElements() * element_bytes;
  words_.assign(static_cast<size_t>(bytes / 16), {{kNan, kNan, kNan, kNan}});
}

template <typename T>
cuda::KvPages<T> EmulatedKv::Pages(int64_t layer) const {
  return {reinterpret_cast<T*>(words_.data()) + layer * LayerElements(),
          static_cast<int32_t>(shape_.num_kv_heads), static_cast<int32_t>(shape_.head_dim),
          static_cast<int32_t>(stride())};
}

std::vector<float> EmulatedKv::RowOf(int64_t layer, int64_t slot, int64_t kv_head, int part) const {
  std::vector<float> row;
  const auto read = [&](const auto& pages) {
    const auto* from = pages.data + PageRow(pages, slot / kBlockTokens, static_cast<int>(kv_head),
                                            part, slot % kBlockTokens);
    for (int64_t i = 0; i < stride(); ++i) row.push_back(simt::ToFloat(from[i]));
  };
  if (shape_.format == KvFormat::kF32) {
    read(Pages<float>(layer));
  } else {
    read(Pages<simt::Bf16>(layer));
  }
  return row;
}

void RotateAndStoreEmulated(const QkvArgs& args, simt::Stream stream) {
  if (args.kv->format() == KvFormat::kF32) {
    RotateRows<float>(args, stream);
  } else {
    RotateRows<simt::Bf16>(args, stream);
  }
}

void AttendEmulated(const AttentionArgs& args, simt::Stream stream) {
  if (args.kv->format() == KvFormat::kF32) {
    Attend<float>(args, stream);
  } else {
    Attend<simt::Bf16>(args, stream);
  }
}

void AddGatedPrefixEmulated(const GatedPrefixArgs& args, simt::Stream stream) {
  const cuda::GatedPrefixRowArgs own{{args.q.data, args.q.rows, args.q.cols, args.q.stride},
                                     {args.kv.data, args.kv.rows, args.kv.cols, args.kv.stride},
                                     static_cast<int32_t>(args.num_heads),
                                     static_cast<int32_t>(args.num_kv_heads),
                                     static_cast<int32_t>(args.head_dim),
                                     args.scale,
                                     args.gate};
  const simt::LaunchShape shape{args.q.rows, cuda::kBlockThreads};
  const auto add = [&](auto* out) {
    using T = std::remove_pointer_t<decltype(out)>;
    simt::Launch(shape, stream, cuda::AddGatedPrefixRows<T>, own,
                 cuda::DeviceRows<T>{out, args.out.rows, args.out.cols, args.out.stride});
  };
  if (args.out.dtype == DType::kF32) {
    add(static_cast<float*>(args.out.data));
  } else {
    add(static_cast<simt::Bf16*>(args.out.data));
  }
}

}  // namespace polyad::test
