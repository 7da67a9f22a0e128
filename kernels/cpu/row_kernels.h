#pragma once

// The row-wise kernels and the attention kernels of one instruction set, as a table of functions
// over plain pointers: what the CPU backend calls from its tasks once the level is chosen. The
// sources *_kernel.cc and row_kernels.cc are compiled for every level into namespace
// polyad::cpu::<level>. A row gets the same bits whatever else is in the call.

#include <cstdint>

#include "kernels/api/backend.h"
#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/grouped_panel.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/site_kernels.h"

namespace polyad::cpu {

// y = norm(x) for one row of `cols`; y is f32 or bf16.
struct NormRow {
  NormKind kind = NormKind::kRms;
  bool bf16_out = false;
  float eps = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;
  int64_t cols = 0;
};

// One q or k head in place: rms norm where `norm` is given, then rotation by the position's table
// rows.
struct RotateHead {
  int64_t head_dim = 0;
  const float* norm = nullptr;
  float norm_eps = 0;
  const float* cos = nullptr;  // [half]
  const float* sin = nullptr;
  int64_t half = 0;  // rotary_dim / 2
};

struct ActivateRow {
  ActivationKind kind = ActivationKind::kSilu;
  bool gated = false;
  bool bf16_out = false;
  int64_t cols = 0;  // of y; x has twice as many where gated
};

// Token `token` of a page of K/V.
struct PageToken {
  KvLayout layout;
  int64_t head_dim = 0;
  int64_t token = 0;
};

struct RowKernels {
  void (*norm)(const NormRow& args, const float* x, void* y) = nullptr;
  void (*rotate)(const RotateHead& args, float* head) = nullptr;
  void (*store_token)(const PageToken& at, const float* k, const float* v, void* page) = nullptr;
  void (*activate)(const ActivateRow& args, const float* x, void* y) = nullptr;
  // Index of the first largest value; 0 where all are NaN.
  int64_t (*argmax)(const float* x, int64_t cols) = nullptr;
  void (*add)(const float* x, float* y, int64_t cols) = nullptr;  // y += x
  SiteKernels site;
  AttentionKernels attention;        // over plain pages
  AttentionKernels coded_attention;  // over pages of codes
  DecodeGrouped decode_grouped = nullptr;
  DecodeScaling decode_scaling = nullptr;
};

namespace scalar {
RowKernels MakeRowKernels();
}
namespace avx2 {
RowKernels MakeRowKernels();
}
namespace avx512 {
RowKernels MakeRowKernels();
}
namespace amx {
// The rest goes by avx512.
AttentionKernels MakeAttentionKernels();  // bf16 pages only
AttentionKernels MakeCodedAttentionKernels();
}  // namespace amx

}  // namespace polyad::cpu
