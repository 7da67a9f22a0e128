#include "kernels/cuda/cublaslt_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"
#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/loader_message.h"

namespace polyad::cuda {
namespace {

using cublaslt::Functions;
using cublaslt::Status;

constexpr int kMostCandidates = 16;
constexpr uint32_t kCallAlignment =
    16;  // bytes, of everything that a call brings (matmul_library.h)

// The functions of an open library one by one; remembers the first that it has not.
class Symbols {
 public:
  explicit Symbols(void* library) : library_(library) {}
  template <typename Function>
  void Find(const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library_, name));
    if (function == nullptr && missing_.empty()) missing_ = name;
  }
  const std::string& missing() const { return missing_; }

 private:
  void* const library_;
  std::string missing_;
};

std::string FindAll(void* library, Functions& functions) {
  Symbols symbols(library);
  symbols.Find("cublasLtGetVersion", functions.GetVersion);
  symbols.Find("cublasLtGetStatusString", functions.GetStatusString);
  symbols.Find("cublasLtCreate", functions.Create);
  symbols.Find("cublasLtDestroy", functions.Destroy);
  symbols.Find("cublasLtMatmulDescCreate", functions.MatmulDescCreate);
  symbols.Find("cublasLtMatmulDescDestroy", functions.MatmulDescDestroy);
  symbols.Find("cublasLtMatmulDescSetAttribute", functions.MatmulDescSetAttribute);
  symbols.Find("cublasLtMatrixLayoutCreate", functions.MatrixLayoutCreate);
  symbols.Find("cublasLtMatrixLayoutDestroy", functions.MatrixLayoutDestroy);
  symbols.Find("cublasLtMatmulPreferenceCreate", functions.MatmulPreferenceCreate);
  symbols.Find("cublasLtMatmulPreferenceDestroy", functions.MatmulPreferenceDestroy);
  symbols.Find("cublasLtMatmulPreferenceSetAttribute", functions.MatmulPreferenceSetAttribute);
  symbols.Find("cublasLtMatmulAlgoGetHeuristic", functions.MatmulAlgoGetHeuristic);
  symbols.Find("cublasLtMatmulAlgoConfigGetAttribute", functions.MatmulAlgoConfigGetAttribute);
  symbols.Find("cublasLtMatmulAlgoCheck", functions.MatmulAlgoCheck);
  symbols.Find("cublasLtMatmul", functions.Matmul);
  return symbols.missing();
}

// What the three matrices of a product look like; destroyed with it.
class Layouts {
 public:
  Layouts(const Functions& functions, const PlainShape& shape, int64_t rows, int64_t x_stride,
          int64_t y_stride)
      : functions_(functions) {
    const auto out = static_cast<uint64_t>(shape.out);
    const auto in = static_cast<uint64_t>(shape.in);
    const auto columns = static_cast<uint64_t>(rows);
    status_ = functions.MatrixLayoutCreate(&a_, cublaslt::kReal16BF, in, out, shape.in);
    Then(functions.MatrixLayoutCreate(&b_, cublaslt::kReal16BF, in, columns, x_stride));
    Then(functions.MatrixLayoutCreate(&d_, cublaslt::kReal32F, out, columns, y_stride));
  }
  ~Layouts() {
    for (const cublaslt::Layout layout : {a_, b_, d_}) {
      if (layout != nullptr) functions_.MatrixLayoutDestroy(layout);
    }
  }
  Layouts(const Layouts&) = delete;
  Layouts& operator=(const Layouts&) = delete;
  Status status() const { return status_; }
  cublaslt::Layout a() const { return a_; }
  cublaslt::Layout b() const { return b_; }
  cublaslt::Layout d() const { return d_; }

 private:
  void Then(Status status) {
    if (status_ == cublaslt::kSuccess) status_ = status;
  }

  const Functions& functions_;
  Status status_;
  cublaslt::Layout a_ = nullptr;
  cublaslt::Layout b_ = nullptr;
  cublaslt::Layout d_ = nullptr;
};

cublaslt::Algorithm OfLibrary(const MatmulAlgorithm& algorithm) {
  cublaslt::Algorithm own;
  std::copy(algorithm.words.begin(), algorithm.words.end(), own.data);
  return own;
}

// As a trial has them; a call's strides may be longer, by whole multiples of 16 bytes.
int64_t XStride(const PlainShape& shape) { return RoundUp(shape.in, kRowElements); }

}  // namespace

std::unique_ptr<CublasLtLibrary> CublasLtLibrary::Open(const std::string& path,
                                                       std::string& wrong) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    wrong = LoaderMessage();
    return nullptr;
  }
  Functions functions = {};
  const std::string missing = FindAll(library, functions);
  if (!missing.empty()) {
    wrong = absl::StrFormat("%s: it has no %s", path, missing);
    return nullptr;
  }
  std::unique_ptr<CublasLtLibrary> opened(new CublasLtLibrary(functions));
  wrong = opened->Start();
  if (wrong.empty()) return opened;
  wrong = absl::StrFormat("%s: %s", path, wrong);
  return nullptr;
}

std::string CublasLtLibrary::Start() {
  if (functions_.GetVersion() / 10000 != cublaslt::kMajorVersion) {
    return absl::StrFormat("expected version %d of cuBLASLt, got %d", cublaslt::kMajorVersion,
                           functions_.GetVersion() / 10000);
  }
  Status status = functions_.Create(&handle_);
  if (status != cublaslt::kSuccess) {
    handle_ = nullptr;
    return Saying(status, "cublasLtCreate");
  }
  status = functions_.MatmulDescCreate(&desc_, cublaslt::kCompute32F, cublaslt::kReal32F);
  if (status == cublaslt::kSuccess) {
    status = functions_.MatmulDescSetAttribute(desc_, cublaslt::kDescTransA, &cublaslt::kTransposed,
                                               sizeof(cublaslt::kTransposed));
  }
  if (status != cublaslt::kSuccess) return Saying(status, "a description of the product");
  status = functions_.MatmulPreferenceCreate(&preference_);
  const auto prefer = [&](int attribute, const auto value) {
    if (status != cublaslt::kSuccess) return;
    status = functions_.MatmulPreferenceSetAttribute(preference_, attribute, &value, sizeof(value));
  };
  prefer(cublaslt::kPrefWorkspace, uint64_t{0});
  prefer(cublaslt::kPrefReductions, uint32_t{0});
  for (int i = 0; i < 4; ++i) prefer(cublaslt::kPrefAlignmentA + i, kCallAlignment);
  return status == cublaslt::kSuccess ? "" : Saying(status, "preferences");
}

CublasLtLibrary::~CublasLtLibrary() {
  if (preference_ != nullptr) functions_.MatmulPreferenceDestroy(preference_);
  if (desc_ != nullptr) functions_.MatmulDescDestroy(desc_);
  if (handle_ != nullptr) functions_.Destroy(handle_);
}

std::string CublasLtLibrary::Saying(Status status, const char* what) const {
  return absl::StrFormat("%s: %s (%d)", what, functions_.GetStatusString(status), status);
}

std::string CublasLtLibrary::name() const {
  const size_t version = functions_.GetVersion();
  return absl::StrFormat("cuBLASLt %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}

std::vector<MatmulAlgorithm> CublasLtLibrary::Candidates(const PlainShape& shape, int64_t rows) {
  const Layouts layouts(functions_, shape, rows, XStride(shape), shape.out);
  if (layouts.status() != cublaslt::kSuccess) return {};
  cublaslt::Result results[kMostCandidates] = {};
  int count = 0;
  const Status status =
      functions_.MatmulAlgoGetHeuristic(handle_, desc_, layouts.a(), layouts.b(), layouts.d(),
                                        layouts.d(), preference_, kMostCandidates, results, &count);
  if (status != cublaslt::kSuccess) return {};
  std::vector<MatmulAlgorithm> found;
  for (int i = 0; i < std::min(count, kMostCandidates); ++i) {
    const cublaslt::Result& result = results[i];
    if (result.state != cublaslt::kSuccess || result.workspace_bytes > 0) continue;
    MatmulAlgorithm algorithm;
    std::copy(std::begin(result.algorithm.data), std::end(result.algorithm.data),
              algorithm.words.begin());
    const auto config = [&](int attribute, auto& value) {
      size_t written = 0;
      return functions_.MatmulAlgoConfigGetAttribute(&result.algorithm, attribute, &value,
                                                     sizeof(value), &written);
    };
    if (config(cublaslt::kConfigSplits, algorithm.splits) != cublaslt::kSuccess ||
        config(cublaslt::kConfigReduction, algorithm.reduction) != cublaslt::kSuccess) {
      continue;
    }
    found.push_back(algorithm);
  }
  return found;
}

bool CublasLtLibrary::CanRun(const PlainShape& shape, const MatmulAlgorithm& algorithm,
                             int64_t rows) {
  const Layouts layouts(functions_, shape, rows, XStride(shape), shape.out);
  if (layouts.status() != cublaslt::kSuccess) return false;
  const cublaslt::Algorithm own = OfLibrary(algorithm);
  cublaslt::Result result = {};
  const Status status = functions_.MatmulAlgoCheck(handle_, desc_, layouts.a(), layouts.b(),
                                                   layouts.d(), layouts.d(), &own, &result);
  return status == cublaslt::kSuccess && result.workspace_bytes == 0;
}

std::string CublasLtLibrary::Multiply(const MatmulCall& call, const MatmulAlgorithm& algorithm,
                                      simt::Stream stream) {
  const Layouts layouts(functions_, call.shape, call.rows, call.x_stride, call.y_stride);
  if (layouts.status() != cublaslt::kSuccess) {
    return Saying(layouts.status(), "cublasLtMatrixLayoutCreate");
  }
  const cublaslt::Algorithm own = OfLibrary(algorithm);
  const float one = 1.0f;
  const float beta = call.accumulate ? 1.0f : 0.0f;
  const Status status = functions_.Matmul(handle_, desc_, &one, call.weight, layouts.a(), call.x,
                                          layouts.b(), &beta, call.y, layouts.d(), call.y,
                                          layouts.d(), &own, nullptr, 0, simt::QueueOf(stream));
  return status == cublaslt::kSuccess ? "" : Saying(status, "cublasLtMatmul");
}

}  // namespace polyad::cuda
