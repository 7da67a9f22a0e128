// Libraries for tests of how cuBLASLt is called, by FAKE_CUBLASLT: 0 multiplies matrices of the
// host's and refuses whatever is not asked for as it should be, 1 lacks a function, 2 is of another
// version, 3 finds no device. Matrices are column by column, as the library's documentation has
// them; nothing here is shared with the code under test but cublaslt_api.h.

#include <bit>
#include <cstring>

#include "kernels/cuda/cublaslt_api.h"

namespace {

using polyad::cuda::cublaslt::Algorithm;
using polyad::cuda::cublaslt::Desc;
using polyad::cuda::cublaslt::Handle;
using polyad::cuda::cublaslt::kCompute32F;
using polyad::cuda::cublaslt::kConfigReduction;
using polyad::cuda::cublaslt::kConfigSplits;
using polyad::cuda::cublaslt::kDescTransA;
using polyad::cuda::cublaslt::kInvalidValue;
using polyad::cuda::cublaslt::kNotInitialised;
using polyad::cuda::cublaslt::kNotSupported;
using polyad::cuda::cublaslt::kPrefAlignmentA;
using polyad::cuda::cublaslt::kPrefReductions;
using polyad::cuda::cublaslt::kPrefWorkspace;
using polyad::cuda::cublaslt::kReal16BF;
using polyad::cuda::cublaslt::kReal32F;
using polyad::cuda::cublaslt::kSuccess;
using polyad::cuda::cublaslt::kTransposed;
using polyad::cuda::cublaslt::Layout;
using polyad::cuda::cublaslt::Preference;
using polyad::cuda::cublaslt::Result;
using polyad::cuda::cublaslt::Status;
using polyad::cuda::cublaslt::Stream;

struct FakeDesc {
  bool is_transposed = false;
};
struct FakeLayout {
  int type;
  uint64_t rows;
  uint64_t cols;
  int64_t stride;
};
struct FakePreference {
  uint64_t workspace = 99;
  uint32_t reductions = 99;
  uint32_t alignment[4] = {};
};

[[maybe_unused]] float Bf16At(const void* matrix, int64_t at) {
  const auto bits = static_cast<uint32_t>(static_cast<const uint16_t*>(matrix)[at]) << 16;
  return std::bit_cast<float>(bits);
}

// Of a product of bf16 numbers into fp32, the first matrix transposed.
bool IsProduct(const FakeDesc& desc, const FakeLayout& a, const FakeLayout& b,
               const FakeLayout& d) {
  return desc.is_transposed && a.type == kReal16BF && b.type == kReal16BF && d.type == kReal32F &&
         a.rows == b.rows && a.cols == d.rows && b.cols == d.cols &&
         a.stride >= static_cast<int64_t>(a.rows) && b.stride >= static_cast<int64_t>(b.rows) &&
         d.stride >= static_cast<int64_t>(d.rows);
}

}  // namespace

extern "C" {

size_t cublasLtGetVersion() { return FAKE_CUBLASLT == 2 ? 120803 : 130100; }

const char* cublasLtGetStatusString(Status status) {
  return status == kNotInitialised ? "the library was not initialized" : "another status";
}

Status cublasLtCreate(Handle* handle) {
  static int own;
  *handle = &own;
  return FAKE_CUBLASLT == 3 ? kNotInitialised : kSuccess;
}
Status cublasLtDestroy(Handle) { return kSuccess; }

Status cublasLtMatmulDescCreate(Desc* desc, int compute_type, int scale_type) {
  if (compute_type != kCompute32F || scale_type != kReal32F) return kInvalidValue;
  *desc = new FakeDesc;
  return kSuccess;
}
Status cublasLtMatmulDescDestroy(Desc desc) {
  delete static_cast<FakeDesc*>(desc);
  return kSuccess;
}
Status cublasLtMatmulDescSetAttribute(Desc desc, int attribute, const void* value, size_t bytes) {
  int32_t number = 0;
  if (attribute != kDescTransA || bytes != sizeof(number)) return kInvalidValue;
  std::memcpy(&number, value, bytes);
  static_cast<FakeDesc*>(desc)->is_transposed = number == kTransposed;
  return kSuccess;
}

Status cublasLtMatrixLayoutCreate(Layout* layout, int type, uint64_t rows, uint64_t cols,
                                  int64_t stride) {
  *layout = new FakeLayout{type, rows, cols, stride};
  return kSuccess;
}
Status cublasLtMatrixLayoutDestroy(Layout layout) {
  delete static_cast<FakeLayout*>(layout);
  return kSuccess;
}

Status cublasLtMatmulPreferenceCreate(Preference* preference) {
  *preference = new FakePreference;
  return kSuccess;
}
Status cublasLtMatmulPreferenceDestroy(Preference preference) {
  delete static_cast<FakePreference*>(preference);
  return kSuccess;
}
Status cublasLtMatmulPreferenceSetAttribute(Preference preference, int attribute, const void* value,
                                            size_t bytes) {
  auto& own = *static_cast<FakePreference*>(preference);
  void* to = nullptr;
  size_t expected = sizeof(uint32_t);
  if (attribute == kPrefWorkspace) {
    to = &own.workspace;
    expected = sizeof(uint64_t);
  } else if (attribute == kPrefReductions) {
    to = &own.reductions;
  } else if (attribute >= kPrefAlignmentA && attribute < kPrefAlignmentA + 4) {
    to = &own.alignment[attribute - kPrefAlignmentA];
  }
  if (to == nullptr || bytes != expected) return kInvalidValue;
  std::memcpy(to, value, bytes);
  return kSuccess;
}

// Four results: one that failed, one that needs memory, one in two parts, one that will do. The
// words of each are its number and twice that.
Status cublasLtMatmulAlgoGetHeuristic(Handle, Desc desc, Layout a, Layout b, Layout c, Layout d,
                                      Preference preference, int most, Result* results,
                                      int* count) {
  const auto& own = *static_cast<FakePreference*>(preference);
  const bool is_asked = own.workspace == 0 && own.reductions == 0 && own.alignment[0] == 16 &&
                        own.alignment[1] == 16 && own.alignment[2] == 16 &&
                        own.alignment[3] == 16 && c == d && most >= 4;
  if (!is_asked || !IsProduct(*static_cast<FakeDesc*>(desc), *static_cast<FakeLayout*>(a),
                              *static_cast<FakeLayout*>(b), *static_cast<FakeLayout*>(d))) {
    return kInvalidValue;
  }
  for (uint64_t i = 0; i < 4; ++i) {
    results[i] = {};
    results[i].algorithm.data[0] = i;
    results[i].algorithm.data[7] = 2 * i;
    results[i].state = i == 0 ? kNotSupported : kSuccess;
    results[i].workspace_bytes = i == 1 ? 1 << 20 : 0;
  }
  *count = 4;
  return kSuccess;
}

Status cublasLtMatmulAlgoConfigGetAttribute(const Algorithm* algorithm, int attribute, void* value,
                                            size_t bytes, size_t* written) {
  const bool is_split = algorithm->data[0] == 2;
  const int32_t splits = is_split ? 2 : 1;
  const uint32_t reduction = is_split ? 1 : 0;
  if (bytes != 4 || written == nullptr) return kInvalidValue;
  if (attribute != kConfigSplits && attribute != kConfigReduction) return kInvalidValue;
  if (attribute == kConfigSplits) std::memcpy(value, &splits, bytes);
  if (attribute == kConfigReduction) std::memcpy(value, &reduction, bytes);
  *written = bytes;
  return kSuccess;
}

// Up to 100 rows; from 90 on with memory to work in.
Status cublasLtMatmulAlgoCheck(Handle, Desc desc, Layout a, Layout b, Layout c, Layout d,
                               const Algorithm* algorithm, Result* result) {
  const FakeLayout& rows = *static_cast<FakeLayout*>(b);
  if (!IsProduct(*static_cast<FakeDesc*>(desc), *static_cast<FakeLayout*>(a), rows,
                 *static_cast<FakeLayout*>(d)) ||
      c != d || algorithm->data[7] != 2 * algorithm->data[0]) {
    return kInvalidValue;
  }
  *result = {};
  result->workspace_bytes = rows.cols < 90 ? 0 : 1;
  return rows.cols <= 100 ? kSuccess : kNotSupported;
}

#if FAKE_CUBLASLT != 1
Status cublasLtMatmul(Handle, Desc desc, const void* alpha, const void* a, Layout a_layout,
                      const void* b, Layout b_layout, const void* beta, const void* c,
                      Layout c_layout, void* d, Layout d_layout, const Algorithm* algorithm,
                      void* workspace, size_t workspace_bytes, Stream stream) {
  const FakeLayout& at = *static_cast<FakeLayout*>(a_layout);
  const FakeLayout& bt = *static_cast<FakeLayout*>(b_layout);
  const FakeLayout& dt = *static_cast<FakeLayout*>(d_layout);
  if (!IsProduct(*static_cast<FakeDesc*>(desc), at, bt, dt) || c != d || c_layout != d_layout ||
      workspace != nullptr || workspace_bytes != 0 || algorithm->data[0] != 3 ||
      algorithm->data[7] != 6 || stream != nullptr) {
    return kInvalidValue;
  }
  const float scale = *static_cast<const float*>(alpha);
  const float kept = *static_cast<const float*>(beta);
  auto* out = static_cast<float*>(d);
  for (int64_t col = 0; col < static_cast<int64_t>(dt.cols); ++col) {
    for (int64_t row = 0; row < static_cast<int64_t>(dt.rows); ++row) {
      double sum = 0.0;
      for (int64_t i = 0; i < static_cast<int64_t>(at.rows); ++i) {
        sum += static_cast<double>(Bf16At(a, row * at.stride + i)) * Bf16At(b, col * bt.stride + i);
      }
      float& value = out[col * dt.stride + row];
      value = scale * static_cast<float>(sum) + (kept == 0.0f ? 0.0f : kept * value);
    }
  }
  return kSuccess;
}
#endif

}  // extern "C"
