#include <cuda_runtime.h>

#include "kernels/cuda/cublaslt_library.cc"
#include "kernels/cuda/cuda_backend.cc"
#include "kernels/cuda/device.cc"
#include "kernels/cuda/device_memory.cc"
#include "kernels/cuda/draw_tokens.cuh"
#include "kernels/cuda/gated_prefix.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/kronecker.cuh"
#include "kernels/cuda/kv_pool.cc"
#include "kernels/cuda/low_rank.cuh"
#include "kernels/cuda/packed_op.cc"
#include "kernels/cuda/packed_products.cc"
#include "kernels/cuda/packed_sites.cc"
#include "kernels/cuda/packed_weight.cc"
#include "kernels/cuda/paged_attention.cuh"
#include "kernels/cuda/plain_matrix.cc"
#include "kernels/cuda/plain_products.cc"
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/rotate_store.cuh"
#include "kernels/cuda/row_ops.cuh"
#include "kernels/cuda/sign_bits.cuh"
#include "kernels/cuda/site_rows.cuh"
#include "kernels/cuda/sparse.cuh"
#include "kernels/cuda/staging.cc"
#include "kernels/cuda/step_graphs.cc"

namespace polyad::cuda {

bool HasCodeForDevice() {
  const void* const kernels[] = {
      reinterpret_cast<const void*>(LowRankShrinkFew),
      reinterpret_cast<const void*>(LowRankShrinkMany),
      reinterpret_cast<const void*>(LowRankExpandFew),
      reinterpret_cast<const void*>(LowRankExpandMany),
      reinterpret_cast<const void*>(LowRankShrinkExact),
      reinterpret_cast<const void*>(LowRankExpandExact),
      reinterpret_cast<const void*>(NormRows<float>),
      reinterpret_cast<const void*>(NormRows<simt::Bf16>),
      reinterpret_cast<const void*>(ActivateRows<float>),
      reinterpret_cast<const void*>(ActivateRows<simt::Bf16>),
      reinterpret_cast<const void*>(ApplyVectors<float>),
      reinterpret_cast<const void*>(ApplyVectors<simt::Bf16>),
      reinterpret_cast<const void*>(GatherFloatRows),
      reinterpret_cast<const void*>(ArgMaxRows),
      reinterpret_cast<const void*>(DrawTokens),
      reinterpret_cast<const void*>(SignProducts),
      reinterpret_cast<const void*>(SignProductsExact),
      reinterpret_cast<const void*>(RotateAndStoreRows<float>),
      reinterpret_cast<const void*>(RotateAndStoreRows<simt::Bf16>),
      reinterpret_cast<const void*>(RotateAndStoreRows<Coded<KvFormat::kInt8>>),
      reinterpret_cast<const void*>(RotateAndStoreRows<Coded<KvFormat::kInt4>>),
      reinterpret_cast<const void*>(AttendPages<4, 1, simt::Bf16>),
      reinterpret_cast<const void*>(AttendPages<4, kAttentionWarps, simt::Bf16>),
      reinterpret_cast<const void*>(AttendPages<8, 1, simt::Bf16>),
      reinterpret_cast<const void*>(AttendPages<8, kAttentionWarps, simt::Bf16>),
      reinterpret_cast<const void*>(AttendPages<16, 1, simt::Bf16>),
      reinterpret_cast<const void*>(AttendPages<16, kAttentionWarps, simt::Bf16>),
      reinterpret_cast<const void*>(AttendPages<4, 1, Coded<KvFormat::kInt8>>),
      reinterpret_cast<const void*>(AttendPages<4, kAttentionWarps, Coded<KvFormat::kInt8>>),
      reinterpret_cast<const void*>(AttendPages<8, 1, Coded<KvFormat::kInt8>>),
      reinterpret_cast<const void*>(AttendPages<8, kAttentionWarps, Coded<KvFormat::kInt8>>),
      reinterpret_cast<const void*>(AttendPages<16, 1, Coded<KvFormat::kInt8>>),
      reinterpret_cast<const void*>(AttendPages<16, kAttentionWarps, Coded<KvFormat::kInt8>>),
      reinterpret_cast<const void*>(AttendPages<4, 1, Coded<KvFormat::kInt4>>),
      reinterpret_cast<const void*>(AttendPages<4, kAttentionWarps, Coded<KvFormat::kInt4>>),
      reinterpret_cast<const void*>(AttendPages<8, 1, Coded<KvFormat::kInt4>>),
      reinterpret_cast<const void*>(AttendPages<8, kAttentionWarps, Coded<KvFormat::kInt4>>),
      reinterpret_cast<const void*>(AttendPages<16, 1, Coded<KvFormat::kInt4>>),
      reinterpret_cast<const void*>(AttendPages<16, kAttentionWarps, Coded<KvFormat::kInt4>>),
      reinterpret_cast<const void*>(AttendExact),
      reinterpret_cast<const void*>(AddGatedPrefixRows<float>),
      reinterpret_cast<const void*>(AddGatedPrefixRows<simt::Bf16>),
      reinterpret_cast<const void*>(MergeSlots<float>),
      reinterpret_cast<const void*>(MergeTurnedSlots),
      reinterpret_cast<const void*>(MergeSlots<simt::Bf16>),
      reinterpret_cast<const void*>(ProductFew<WeightFormat::kBf16>),
      reinterpret_cast<const void*>(ProductMany<WeightFormat::kBf16>),
      reinterpret_cast<const void*>(ProductFew<WeightFormat::kInteger8>),
      reinterpret_cast<const void*>(ProductMany<WeightFormat::kInteger8>),
      reinterpret_cast<const void*>(ProductFew<WeightFormat::kInteger4>),
      reinterpret_cast<const void*>(ProductMany<WeightFormat::kInteger4>),
      reinterpret_cast<const void*>(ProductFew<WeightFormat::kLevels4>),
      reinterpret_cast<const void*>(ProductMany<WeightFormat::kLevels4>),
      reinterpret_cast<const void*>(ProductFew<WeightFormat::kFloat8>),
      reinterpret_cast<const void*>(ProductMany<WeightFormat::kFloat8>),
      reinterpret_cast<const void*>(ProductExact),
      reinterpret_cast<const void*>(EmbedRows),
      reinterpret_cast<const void*>(SparseProducts<float>),
      reinterpret_cast<const void*>(KroneckerProducts<float>),
      reinterpret_cast<const void*>(RotateBlocks<float>),
      reinterpret_cast<const void*>(NormActivations<float>),
      reinterpret_cast<const void*>(MoveRows<float, float>),
      reinterpret_cast<const void*>(SparseProducts<simt::Bf16>),
      reinterpret_cast<const void*>(KroneckerProducts<simt::Bf16>),
      reinterpret_cast<const void*>(RotateBlocks<simt::Bf16>),
      reinterpret_cast<const void*>(NormActivations<simt::Bf16>),
      reinterpret_cast<const void*>(MoveRows<float, simt::Bf16>),
      reinterpret_cast<const void*>(MoveRows<simt::Bf16, simt::Bf16>),
      reinterpret_cast<const void*>(RotatePairs),
      reinterpret_cast<const void*>(ReplaceEmbeddings),
      reinterpret_cast<const void*>(AddLowRankEmbeddings),
  };
  for (const void* kernel : kernels) {
    cudaFuncAttributes attributes = {};
    if (cudaFuncGetAttributes(&attributes, kernel) != cudaSuccess) return false;
  }
  return true;
}

std::unique_ptr<Backend> MakeBackendOn(std::unique_ptr<Device> device, ComputeMode mode,
                                       std::unique_ptr<MatmulLibrary> library, std::string why_own,
                                       int64_t graph_rows) {
  std::unique_ptr<PlainProducts> products;
  if (library != nullptr) products = std::make_unique<PlainProducts>(std::move(library));
  return std::make_unique<CudaBackend>(mode, std::move(device), std::move(products),
                                       std::move(why_own), graph_rows);
}

}  // namespace polyad::cuda
