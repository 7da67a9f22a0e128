#include "tests/kernels/cuda/fake_matmuls.h"

#include <algorithm>
#include <utility>

#include "kernels/api/check.h"

namespace polyad::test {
namespace {

constexpr int kThreads = 128;

bool IsAligned(const void* memory, int64_t stride_bytes) {
  return reinterpret_cast<uintptr_t>(memory) % 16 == 0 && stride_bytes % 16 == 0;
}

// y[t, o] (+)= sum_i W[o, i] x[t, i], a block to a row; in fp32, backwards, where told.
SIMT_KERNEL(kThreads) void FakeProduct(cuda::MatmulCall call, bool backwards) {
  const int64_t t = simt::BlockIndex();
  const simt::Bf16* x = call.x + t * call.x_stride;
  float* y = call.y + t * call.y_stride;
  for (int64_t o = simt::ThreadIndex(); o < call.shape.out; o += kThreads) {
    const simt::Bf16* w = call.weight + o * call.shape.in;
    double sum = 0.0;
    float rounded = 0.0f;
    for (int64_t i = 0; i < call.shape.in; ++i) {
      sum += static_cast<double>(simt::ToFloat(w[i])) * simt::ToFloat(x[i]);
      const int64_t last = call.shape.in - 1 - i;
      rounded += simt::ToFloat(w[last]) * simt::ToFloat(x[last]);
    }
    const float product = backwards ? rounded : static_cast<float>(sum);
    y[o] = call.accumulate ? y[o] + product : product;
  }
}

}  // namespace

std::vector<cuda::MatmulAlgorithm> FakeMatmuls::Candidates(const cuda::PlainShape&, int64_t) {
  std::vector<cuda::MatmulAlgorithm> found;
  for (const FakeWay& way : ways_) {
    cuda::MatmulAlgorithm algorithm{{}, way.splits, way.reduction};
    algorithm.words[0] = found.size();
    found.push_back(algorithm);
  }
  return found;
}

bool FakeMatmuls::CanRun(const cuda::PlainShape&, const cuda::MatmulAlgorithm& algorithm,
                         int64_t rows) {
  return rows <= ways_[algorithm.words[0]].most_rows;
}

std::string FakeMatmuls::Multiply(const cuda::MatmulCall& call,
                                  const cuda::MatmulAlgorithm& algorithm, simt::Stream stream) {
  KERNEL_CHECK(call.shape.out % cuda::kPlainElements == 0 &&
                   call.shape.in % cuda::kPlainElements == 0 && call.x_stride >= call.shape.in &&
                   call.y_stride >= call.shape.out,
               "shapes of a library's product");
  KERNEL_CHECK(IsAligned(call.weight, call.shape.in * 2) && IsAligned(call.x, call.x_stride * 2) &&
                   IsAligned(call.y, call.y_stride * 4),
               "alignment of a library's product");
  const FakeWay& way = ways_[algorithm.words[0]];
  if (call.rows > way.most_rows) return "too many rows";
  ++calls_[algorithm.words[0]];
  rows_ = std::max(rows_, call.rows);
  simt::Launch({call.rows, kThreads}, stream, FakeProduct, call, call.rows > way.same_bits_to);
  return "";
}

std::unique_ptr<cuda::PlainProducts> FakeProducts(std::vector<FakeWay> ways, int64_t most_rows,
                                                  FakeMatmuls*& library) {
  auto made = std::make_unique<FakeMatmuls>(std::move(ways));
  library = made.get();
  return std::make_unique<cuda::PlainProducts>(std::move(made), most_rows);
}

}  // namespace polyad::test
