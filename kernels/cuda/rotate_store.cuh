#pragma once

// Rows [q | k | v] after projection: q and k heads h <- rms_norm(h) where asked, then each pair
// (i, i + d/2) of their first d = rotary_dim elements (a, b) <- (a cos - b sin, b cos + a sin); q
// stays in its row, k and v go to the token's slot in the pages, rounded to T, with zeros up to the
// pages' stride, or as codes. A block to a row, a warp to a head: bits depend on the row alone.

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/kv_codes.cuh"
#include "kernels/cuda/kv_pages.cuh"
#include "kernels/simt/simt.h"

namespace polyad::cuda {

inline constexpr int kRotateThreads = 128;
inline constexpr int kRotateWarps = kRotateThreads / simt::kWarpThreads;
inline constexpr int kCodedHeadRoom = 256;  // numbers of a head that is to be codes, at most

template <typename T>
struct RotateArgs {
  DeviceRows<float> qkv;
  int32_t num_heads;
  const float* q_norm;  // [dim] or null
  const float* k_norm;
  float norm_eps;
  const float* cos;  // [positions, rotary_dim / 2]
  const float* sin;
  int32_t rotary_dim;
  const int32_t* positions;
  const int64_t* slots;  // -1: not stored
  KvPages<T> kv;
};

// What a norm multiplies a head with besides its weights; 1 without one. By a warp.
SIMT_FUNCTION float HeadFactor(const float* head, int dim, const float* weight, float eps) {
  if (weight == nullptr) return 1.0f;
  float squares = 0.0f;
  for (int i = simt::Lane(); i < dim; i += simt::kWarpThreads) {
    squares = simt::Fma(head[i], head[i], squares);
  }
  const int last = SIMT_MUTATE("rotate.norm_forgets_a_lane", 1, 2);
  for (int lanes = 16; lanes >= last; lanes /= 2) squares += simt::ShuffleXor(squares, lanes);
  // Lanes write elements of the head that others have read.
  simt::WarpBarrier();
  return simt::InverseRoot(squares / static_cast<float>(dim) + eps);
}

// Norm and rotation of one head by a warp; store(i, number) may write where `head` was read.
template <typename T, typename Store>
SIMT_FUNCTION void RotateHead(const RotateArgs<T>& args, const float* head, const float* weight,
                              int32_t position, const Store& store) {
  const int dim = args.kv.dim;
  const int half = args.rotary_dim / 2;
  const float factor = HeadFactor(head, dim, weight, args.norm_eps);
  const auto element = [&](int i) {
    return weight == nullptr ? head[i] : head[i] * factor * weight[i];
  };
  for (int i = simt::Lane(); i < half; i += simt::kWarpThreads) {
    const int64_t at = static_cast<int64_t>(position) * half + i;
    const float cos = args.cos[at];
    const float sin = SIMT_MUTATE("rotate.other_way", args.sin[at], -args.sin[at]);
    const float a = element(i);
    const float b = element(i + half);
    store(i, a * cos - b * sin);
    store(i + half, b * cos + a * sin);
  }
  for (int i = 2 * half + simt::Lane(); i < dim; i += simt::kWarpThreads) {
    store(i, element(i));
  }
}

template <typename T>
SIMT_FUNCTION void StoreKeyAndValue(const RotateArgs<T>& args, const float* row, int head,
                                    int32_t position, int64_t slot) {
  const KvPages<T>& kv = args.kv;
  const int64_t block = slot / kBlockTokens;
  const int64_t offset = slot % kBlockTokens;
  const float* k = row + static_cast<int64_t>(args.num_heads + head) * kv.dim;
  const float* v = k + static_cast<int64_t>(kv.num_kv_heads) * kv.dim;
  T* key = kv.data + PageRow(kv, block, head, kKeyPart, offset);
  T* value = kv.data + PageRow(kv, block, head, kValuePart, offset);
  RotateHead(args, k, args.k_norm, position,
             [&](int i, float number) { key[i] = simt::FromFloat<T>(number); });
  const int columns = SIMT_MUTATE("store.last_column", kv.dim, kv.dim - 1);
  for (int i = simt::Lane(); i < kv.stride; i += simt::kWarpThreads) {
    value[i] = simt::FromFloat<T>(i < columns ? v[i] : 0.0f);
    if (i >= kv.dim) key[i] = simt::FromFloat<T>(0.0f);
  }
}

// `room`: a head for each warp.
template <KvFormat kFormat>
SIMT_FUNCTION void StoreKeyAndValue(const RotateArgs<Coded<kFormat>>& args, const float* row,
                                    int head, int32_t position, int64_t slot,
                                    const simt::SharedArray<float>& room) {
  const KvPages<Coded<kFormat>>& kv = args.kv;
  const int64_t block = slot / kBlockTokens;
  const auto token = static_cast<int>(slot % kBlockTokens);
  const float* k = row + static_cast<int64_t>(args.num_heads + head) * kv.dim;
  const float* v = k + static_cast<int64_t>(kv.num_kv_heads) * kv.dim;
  const int begin = simt::WarpIndex() * kCodedHeadRoom;
  simt::WarpBarrier();  // the head before this was read
  RotateHead(args, k, args.k_norm, position,
             [&](int i, float number) { room.Store(begin + i, number); });
  SIMT_UNLESS("store_codes.no_barrier") simt::WarpBarrier();
  EncodeHead<kFormat, KvPart::kKey>(kv, block, head, token,
                                    [&](int i) { return room.Load(begin + i); });
  EncodeHead<kFormat, KvPart::kValue>(kv, block, head, token, [&](int i) { return v[i]; });
}

template <typename T>
SIMT_KERNEL(kRotateThreads)
void RotateAndStoreRows(RotateArgs<T> args) {
  const int64_t t = simt::BlockIndex();
  float* row = args.qkv.data + t * args.qkv.stride;
  const int32_t position = args.positions[t];
  const int64_t slot = args.slots[t];
  const int heads = args.num_heads + (slot < 0 ? 0 : args.kv.num_kv_heads);
  for (int h = simt::WarpIndex(); h < heads; h += kRotateWarps) {
    if (h < args.num_heads) {
      float* q = row + static_cast<int64_t>(h) * args.kv.dim;
      RotateHead(args, q, args.q_norm, position, [&](int i, float number) { q[i] = number; });
    } else if constexpr (kIsCoded<T>) {
      SIMT_SHARED(float, room, kRotateWarps* kCodedHeadRoom);
      StoreKeyAndValue(args, row, h - args.num_heads, position, slot, room);
    } else {
      StoreKeyAndValue(args, row, h - args.num_heads, position, slot);
    }
  }
}

}  // namespace polyad::cuda
