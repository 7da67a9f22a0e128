// polyad's own products on a GPU beside cuBLASLt's: base weights at the widths of Llama 3 8B, and
// one launch for rows of many low-rank adapters beside a loop over adapters, which is what cuBLASLt
// alone can do. Prints tables of tabs: us a call, TFLOP/s and GB/s (of the weight, read once).
//   cublas_bench [--cuda-plugin=PATH] [--cuda-device=0] [--tries=9]
// A time is the median of tries, each of as many calls in a row as take some milliseconds, without
// a wait between them. Weights take turns, so that none is in the L2 cache from the call before.
// The loop is given its middle rows: rounding them, a launch more for each adapter, is not counted.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend_factory.h"

namespace polyad::test {
namespace {

constexpr int64_t kTurnBytes = int64_t{300} << 20;  // of weights that take turns; an L2 has less
constexpr double kTryUs = 5000;

struct Options {
  BackendOptions backend;
  int tries = 9;
};

// bf16 numbers below 1 by a linear congruential generator (Knuth's constants).
std::vector<uint16_t> Numbers(int64_t count) {
  std::vector<uint16_t> numbers(static_cast<size_t>(count));
  uint64_t state = 1;
  for (uint16_t& number : numbers) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    number = static_cast<uint16_t>((state >> 48 & 0x8000) | 0x3d00 | (state >> 56 & 0x7f));
  }
  return numbers;
}

// Rows of a backend's memory.
class Rows {
 public:
  Rows(Backend& backend, int64_t rows, int64_t cols, int64_t element_bytes)
      : rows_(rows), cols_(cols) {
    auto memory = backend.Allocate(rows * cols * element_bytes);
    if (!memory.ok()) {
      std::fprintf(stderr, "%s\n", memory.status().ToString().c_str());
      std::exit(1);
    }
    memory_ = *memory;
  }
  void Fill() {
    const std::vector<uint16_t> numbers = Numbers(rows_ * cols_);
    std::memcpy(memory_.get(), numbers.data(), numbers.size() * sizeof(uint16_t));
  }
  ActivationRows activations() const { return {memory_.get(), DType::kBF16, rows_, cols_, cols_}; }
  FloatRows floats() const { return {static_cast<float*>(memory_.get()), rows_, cols_, cols_}; }

 private:
  const int64_t rows_;
  const int64_t cols_;
  std::shared_ptr<void> memory_;
};

double UsOf(Backend& backend, int calls, const std::function<void(int)>& call) {
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) call(i);
  backend.Finish();
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
  return took.count() / calls;
}

double MedianUs(Backend& backend, int tries, const std::function<void(int)>& call) {
  UsOf(backend, 3, call);
  const double once = UsOf(backend, 10, call);
  const int calls = std::clamp(static_cast<int>(kTryUs / once), 10, 2000);
  std::vector<double> times;
  for (int i = 0; i < tries; ++i) times.push_back(UsOf(backend, calls, call));
  std::nth_element(times.begin(), times.begin() + tries / 2, times.end());
  return times[static_cast<size_t>(tries / 2)];
}

std::vector<std::unique_ptr<PackedMatrix>> PackCopies(Backend& backend, int64_t out, int64_t in,
                                                      int64_t copies) {
  const std::vector<uint16_t> numbers = Numbers(out * in);
  const TensorView view{numbers.data(), DType::kBF16, out, in};
  std::vector<std::unique_ptr<PackedMatrix>> packed;
  for (int64_t i = 0; i < copies; ++i) {
    auto matrix = backend.PackMatrix(std::span(&view, 1));
    if (!matrix.ok()) {
      std::fprintf(stderr, "%s\n", matrix.status().ToString().c_str());
      std::exit(1);
    }
    packed.push_back(*std::move(matrix));
  }
  return packed;
}

double GemmUs(Backend& backend, int64_t out, int64_t in, int64_t rows, int tries) {
  const int64_t copies = kTurnBytes / (2 * out * in) + 1;
  const auto weights = PackCopies(backend, out, in, copies);
  Rows x(backend, rows, in, 2);
  x.Fill();
  Rows y(backend, rows, out, 4);
  return MedianUs(backend, tries, [&](int i) {
    const PackedMatrix* weight = weights[static_cast<size_t>(i) % weights.size()].get();
    backend.Gemm({weight, nullptr, false, {}}, x.activations(), y.floats());
  });
}

void CompareBases(Backend& own, Backend& cublas, int tries) {
  std::printf(
      "weight\trows\town us\tcuBLASLt us\town TFLOP/s\tcuBLASLt TFLOP/s\town GB/s\tcuBLASLt "
      "GB/s\n");
  const std::pair<int64_t, int64_t> shapes[] = {
      {6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}};
  for (const auto& [out, in] : shapes) {
    for (const int64_t rows : {1, 8, 64, 512}) {
      const double us[] = {GemmUs(own, out, in, rows, tries), GemmUs(cublas, out, in, rows, tries)};
      const double flops = 2e-6 * static_cast<double>(out * in * rows);
      const double bytes = 2e-3 * static_cast<double>(out * in);
      std::printf("[%ld, %ld]\t%ld\t%.1f\t%.1f\t%.1f\t%.1f\t%.0f\t%.0f\n", static_cast<long>(out),
                  static_cast<long>(in), static_cast<long>(rows), us[0], us[1], flops / us[0],
                  flops / us[1], bytes / us[0], bytes / us[1]);
      std::fflush(stdout);
    }
  }
}

struct Mixture {
  int64_t adapters;
  int64_t rows;  // of each
  int64_t rank;
};

constexpr int64_t kWidth = 4096;

double OneLaunchUs(Backend& own, const Mixture& mixture, int tries) {
  const std::vector<uint16_t> a = Numbers(mixture.rank * kWidth);
  const TensorView down{a.data(), DType::kBF16, mixture.rank, kWidth};
  const TensorView up{a.data(), DType::kBF16, kWidth, mixture.rank};
  std::vector<std::unique_ptr<PackedDelta>> ops;
  std::vector<DeltaSegment> segments;
  for (int64_t i = 0; i < mixture.adapters; ++i) {
    PackShare share;
    ops.push_back(*own.PackDelta(LowRank{down, up, 1.0f}, share));
    segments.push_back({i * mixture.rows, (i + 1) * mixture.rows, 0, ops.back().get()});
  }
  Rows x(own, mixture.adapters * mixture.rows, kWidth, 2);
  x.Fill();
  Rows y(own, mixture.adapters * mixture.rows, kWidth, 4);
  return MedianUs(own, tries, [&](int) { own.Apply(segments, x.activations(), y.floats()); });
}

double LoopUs(Backend& cublas, const Mixture& mixture, int tries) {
  const auto downs = PackCopies(cublas, mixture.rank, kWidth, mixture.adapters);
  const auto ups = PackCopies(cublas, kWidth, mixture.rank, mixture.adapters);
  const int64_t rows = mixture.adapters * mixture.rows;
  const int64_t padded = (mixture.rank + 63) / 64 * 64;  // as rows of activations lie
  Rows x(cublas, rows, kWidth, 2);
  x.Fill();
  Rows middle(cublas, rows, padded, 2);
  Rows sums(cublas, rows, padded, 4);
  Rows y(cublas, rows, kWidth, 4);
  return MedianUs(cublas, tries, [&](int) {
    for (int64_t i = 0; i < mixture.adapters; ++i) {
      const int64_t begin = i * mixture.rows;
      const int64_t end = begin + mixture.rows;
      const auto adapter = static_cast<size_t>(i);
      cublas.Gemm({downs[adapter].get(), nullptr, false, {}}, x.activations().Slice(begin, end),
                  sums.floats().Columns(0, mixture.rank).Slice(begin, end));
      ActivationRows rounded = middle.activations().Slice(begin, end);
      rounded.cols = mixture.rank;
      cublas.Gemm({ups[adapter].get(), nullptr, true, {}}, rounded, y.floats().Slice(begin, end));
    }
  });
}

void CompareAdapters(Backend& own, Backend& cublas, int tries) {
  std::printf("adapters\trows of each\trank\tone call us\tloop of cuBLASLt us\n");
  const Mixture mixtures[] = {{32, 1, 16}, {32, 1, 64}, {8, 8, 16}, {4, 128, 16}, {4, 128, 64}};
  for (const Mixture& mixture : mixtures) {
    std::printf("%ld\t%ld\t%ld\t%.1f\t%.1f\n", static_cast<long>(mixture.adapters),
                static_cast<long>(mixture.rows), static_cast<long>(mixture.rank),
                OneLaunchUs(own, mixture, tries), LoopUs(cublas, mixture, tries));
    std::fflush(stdout);
  }
}

std::unique_ptr<Backend> Make(BackendOptions options, const std::string& products) {
  options.mode = ComputeMode::kBF16;
  options.cuda_products = products;
  absl::StatusOr<std::unique_ptr<Backend>> made = MakeBackend("cuda", options);
  if (made.ok()) return *std::move(made);
  std::fprintf(stderr, "%s\n", made.status().ToString().c_str());
  std::exit(1);
}

int Main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const auto value =
        std::string(argument.substr(std::min(argument.find('=') + 1, argument.size())));
    if (argument.starts_with("--cuda-plugin=")) options.backend.cuda_plugin = value;
    if (argument.starts_with("--cuda-device="))
      options.backend.cuda_device = std::atoi(value.c_str());
    if (argument.starts_with("--tries=")) options.tries = std::max(1, std::atoi(value.c_str()));
  }
  const std::unique_ptr<Backend> own = Make(options.backend, "own");
  const std::unique_ptr<Backend> cublas = Make(options.backend, "cublas");
  CompareBases(*own, *cublas, options.tries);
  std::printf("\n");
  CompareAdapters(*own, *cublas, options.tries);
  std::printf("\n%s\n", cublas->info().isa.c_str());
  return 0;
}

}  // namespace
}  // namespace polyad::test

int main(int argc, char** argv) { return polyad::test::Main(argc, argv); }
