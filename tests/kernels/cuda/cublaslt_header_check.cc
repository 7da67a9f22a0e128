// cublaslt_api.h against NVIDIA's own header: compiled where that is at hand (tools/dev cuda),
// never run. Numbers, sizes and places of members; and that each function takes what the header has
// it take, one by one, up to names for the same thing (an enum for int, a pointer for void*).

#include <cublasLt.h>

#include <type_traits>

#include "kernels/cuda/cublaslt_api.h"

namespace polyad::cuda::cublaslt {

static_assert(CUBLAS_VER_MAJOR == kMajorVersion);
static_assert(CUBLAS_STATUS_SUCCESS == kSuccess);
static_assert(CUBLAS_STATUS_NOT_INITIALIZED == kNotInitialised);
static_assert(CUBLAS_STATUS_INVALID_VALUE == kInvalidValue);
static_assert(CUBLAS_STATUS_NOT_SUPPORTED == kNotSupported);
static_assert(CUBLAS_COMPUTE_32F == kCompute32F);
static_assert(CUDA_R_32F == kReal32F);
static_assert(CUDA_R_16BF == kReal16BF);
static_assert(CUBLAS_OP_T == kTransposed);
static_assert(CUBLASLT_MATMUL_DESC_TRANSA == kDescTransA);
static_assert(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES == kPrefWorkspace);
static_assert(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK == kPrefReductions);
static_assert(CUBLASLT_REDUCTION_SCHEME_NONE == 0);
static_assert(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES == kPrefAlignmentA);
static_assert(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES == kPrefAlignmentA + 1);
static_assert(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES == kPrefAlignmentA + 2);
static_assert(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES == kPrefAlignmentA + 3);
static_assert(CUBLASLT_ALGO_CONFIG_SPLITK_NUM == kConfigSplits);
static_assert(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME == kConfigReduction);

static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(Algorithm));
using Real = cublasLtMatmulHeuristicResult_t;
static_assert(sizeof(Real) == sizeof(Result));
static_assert(offsetof(Real, algo) == offsetof(Result, algorithm));
static_assert(offsetof(Real, workspaceSize) == offsetof(Result, workspace_bytes));
static_assert(offsetof(Real, state) == offsetof(Result, state));
static_assert(offsetof(Real, wavesCount) == offsetof(Result, waves));

// A parameter as the machine passes it: integers by size, pointers all alike.
template <typename T>
struct Passed {
  using Type = T;
};
template <typename T>
requires std::is_enum_v<T>
struct Passed<T> {
  static_assert(sizeof(T) == sizeof(int));
  using Type = int;
};
template <typename T>
struct Passed<T*> {
  using Type = void*;
};
template <typename Function>
struct Signature;
template <typename Returned, typename... Parameters>
struct Signature<Returned (*)(Parameters...)> {
  using Type = typename Passed<Returned>::Type(typename Passed<Parameters>::Type...);
};
template <typename Own, typename Theirs>
constexpr bool kSame =
    std::is_same_v<typename Signature<Own>::Type, typename Signature<Theirs>::Type>;

#define POLYAD_SAME(name) \
  static_assert(kSame<decltype(Functions::name), decltype(&cublasLt##name)>, #name)
POLYAD_SAME(GetVersion);
POLYAD_SAME(GetStatusString);
POLYAD_SAME(Create);
POLYAD_SAME(Destroy);
POLYAD_SAME(MatmulDescCreate);
POLYAD_SAME(MatmulDescDestroy);
POLYAD_SAME(MatmulDescSetAttribute);
POLYAD_SAME(MatrixLayoutCreate);
POLYAD_SAME(MatrixLayoutDestroy);
POLYAD_SAME(MatmulPreferenceCreate);
POLYAD_SAME(MatmulPreferenceDestroy);
POLYAD_SAME(MatmulPreferenceSetAttribute);
POLYAD_SAME(MatmulAlgoGetHeuristic);
POLYAD_SAME(MatmulAlgoConfigGetAttribute);
POLYAD_SAME(MatmulAlgoCheck);
POLYAD_SAME(Matmul);
#undef POLYAD_SAME

}  // namespace polyad::cuda::cublaslt
