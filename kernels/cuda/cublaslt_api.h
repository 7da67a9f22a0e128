#pragma once

// The part of cuBLASLt's C interface that cublaslt_library.cc calls, declared here so that nothing
// of the library is needed to build: it is opened at run time. Names and numbers are those of
// cublasLt.h 13 (NVIDIA cuBLAS documentation, "Using the cuBLASLt API"), to which
// tests/kernels/cuda/cublaslt_header_check.cc holds them where that header is there. Plain data.

#include <cstddef>
#include <cstdint>

namespace polyad::cuda::cublaslt {

inline constexpr int kMajorVersion = 13;
inline constexpr char kLibraryName[] = "libcublasLt.so.13";

using Status = int;  // cublasStatus_t
inline constexpr Status kSuccess = 0;
inline constexpr Status kNotInitialised = 1;
inline constexpr Status kInvalidValue = 7;
inline constexpr Status kNotSupported = 15;

inline constexpr int kCompute32F = 68;  // cublasComputeType_t
inline constexpr int kReal32F = 0;      // cudaDataType_t
inline constexpr int kReal16BF = 14;

inline constexpr int32_t kTransposed = 1;   // cublasOperation_t, for kDescTransA
inline constexpr int kDescTransA = 3;       // cublasLtMatmulDescAttributes_t, int32_t
inline constexpr int kPrefWorkspace = 1;    // cublasLtMatmulPreferenceAttributes_t, uint64_t
inline constexpr int kPrefReductions = 3;   // uint32_t, a mask; 0: none
inline constexpr int kPrefAlignmentA = 5;   // uint32_t, then those of B, C and D
inline constexpr int kConfigSplits = 2;     // cublasLtMatmulAlgoConfigAttributes_t, int32_t
inline constexpr int kConfigReduction = 3;  // uint32_t

struct Algorithm {  // cublasLtMatmulAlgo_t
  uint64_t data[8];
};
struct Result {  // cublasLtMatmulHeuristicResult_t
  Algorithm algorithm;
  size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};

using Handle = void*;      // cublasLtHandle_t
using Desc = void*;        // cublasLtMatmulDesc_t
using Layout = void*;      // cublasLtMatrixLayout_t: column by column
using Preference = void*;  // cublasLtMatmulPreference_t
using Stream = void*;      // cudaStream_t

// Named as in the library, after "cublasLt".
struct Functions {
  size_t (*GetVersion)();
  const char* (*GetStatusString)(Status);
  Status (*Create)(Handle*);
  Status (*Destroy)(Handle);
  Status (*MatmulDescCreate)(Desc*, int compute_type, int scale_type);
  Status (*MatmulDescDestroy)(Desc);
  Status (*MatmulDescSetAttribute)(Desc, int attribute, const void* value, size_t bytes);
  Status (*MatrixLayoutCreate)(Layout*, int type, uint64_t rows, uint64_t cols, int64_t stride);
  Status (*MatrixLayoutDestroy)(Layout);
  Status (*MatmulPreferenceCreate)(Preference*);
  Status (*MatmulPreferenceDestroy)(Preference);
  Status (*MatmulPreferenceSetAttribute)(Preference, int attribute, const void* value,
                                         size_t bytes);
  Status (*MatmulAlgoGetHeuristic)(Handle, Desc, Layout a, Layout b, Layout c, Layout d, Preference,
                                   int most, Result* results, int* count);
  Status (*MatmulAlgoConfigGetAttribute)(const Algorithm*, int attribute, void* value, size_t bytes,
                                         size_t* written);
  Status (*MatmulAlgoCheck)(Handle, Desc, Layout a, Layout b, Layout c, Layout d, const Algorithm*,
                            Result*);
  // D = alpha op(A) op(B) + beta C
  Status (*Matmul)(Handle, Desc, const void* alpha, const void* a, Layout, const void* b, Layout,
                   const void* beta, const void* c, Layout, void* d, Layout, const Algorithm*,
                   void* workspace, size_t workspace_bytes, Stream);
};

}  // namespace polyad::cuda::cublaslt
