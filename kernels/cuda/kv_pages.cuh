#pragma once

// Keys and values of one layer in device memory: for each block and kv head a page of keys, then
// one of values, [kBlockTokens, stride] each, so that a page is one run of bytes. A row has `dim`
// numbers and zeros up to `stride`, a multiple of 16. T is Bf16 or float. Borrowed.

#include "kernels/api/backend.h"
#include "kernels/simt/simt.h"

namespace polyad::cuda {

template <typename T>
struct KvPages {
  T* data = nullptr;
  int32_t num_kv_heads = 0;
  int32_t dim = 0;
  int32_t stride = 0;
};

inline constexpr int kKeyPart = 0;
inline constexpr int kValuePart = 1;

// Where the row of token `offset` of a block begins, in elements.
template <typename T>
SIMT_FUNCTION int64_t PageRow(const KvPages<T>& kv, int64_t block, int head, int part,
                              int64_t offset) {
  return (((block * kv.num_kv_heads + head) * 2 + part) * kBlockTokens + offset) * kv.stride;
}

}  // namespace polyad::cuda
