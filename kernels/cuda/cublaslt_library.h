#pragma once

// NVIDIA's cuBLASLt as a MatmulLibrary, opened at run time: no header and no library of it is
// needed to build. bf16 by bf16 into fp32, added up in fp32, without memory to work in. Row by row
// is column by column transposed, so y[t] = W x[t] is D = A^T B: A is the weight, B has a column
// for each row of x, D for each row of y.

#include <memory>
#include <string>

#include "kernels/cuda/cublaslt_api.h"
#include "kernels/cuda/matmul_library.h"

namespace polyad::cuda {

class CublasLtLibrary final : public MatmulLibrary {
 public:
  // `path`: of the library, or its name for the system to look for. For the calling thread's
  // current device. Null where it cannot be used; `wrong` says why. It stays open for good.
  static std::unique_ptr<CublasLtLibrary> Open(const std::string& path, std::string& wrong);
  ~CublasLtLibrary() override;
  CublasLtLibrary(const CublasLtLibrary&) = delete;
  CublasLtLibrary& operator=(const CublasLtLibrary&) = delete;

  std::string name() const override;
  std::vector<MatmulAlgorithm> Candidates(const PlainShape& shape, int64_t rows) override;
  bool CanRun(const PlainShape& shape, const MatmulAlgorithm& algorithm, int64_t rows) override;
  std::string Multiply(const MatmulCall& call, const MatmulAlgorithm& algorithm,
                       simt::Stream stream) override;

 private:
  explicit CublasLtLibrary(const cublaslt::Functions& functions) : functions_(functions) {}
  std::string Start();  // -> what went wrong
  std::string Saying(cublaslt::Status status, const char* what) const;

  const cublaslt::Functions functions_;
  cublaslt::Handle handle_ = nullptr;
  cublaslt::Desc desc_ = nullptr;
  cublaslt::Preference preference_ = nullptr;
};

}  // namespace polyad::cuda
