#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/cpu/delta.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/number_format.h"
#include "kernels/cpu/packed_memory.h"

// Rates of the products and deltas at the shapes of SmolLM2-135M (hidden 576, 30 layers). A "step"
// runs every matrix of the model once, as a decode or prefill step does, so weights come from
// memory and not from a cache. bytes_per_second counts weights (or adapters) once; flops counts 2
// per multiply-add.

namespace polyad::cpu {
namespace {

constexpr int64_t kLayers = 30;

struct Shape {
  int64_t in, out;
};
constexpr Shape kLayer[] = {{576, 960}, {576, 576}, {576, 3072}, {1536, 576}};
constexpr Shape kHead = {576, 49152};

ThreadPool& Pool(int threads) {
  static ThreadPool one(1);
  static ThreadPool two(2);
  return threads == 1 ? one : two;
}

std::unique_ptr<PackedMatrix> RandomMatrix(Shape shape, DType dtype, Isa isa) {
  static std::mt19937 random(1);
  std::vector<uint8_t> bytes(static_cast<size_t>(shape.out * RowBytes(dtype, shape.in)));
  for (size_t i = 0; i + 4 <= bytes.size();
       i += 4) {  // bf16 in +-[0.5, 1); block scales: whatever, finite enough
    const uint32_t word = (random() & 0x80ff80ffu) | 0x3f003f00u;
    std::memcpy(&bytes[i], &word, 4);
  }
  const TensorView part{bytes.data(), dtype, shape.out, shape.in};
  return *PackMatrixCpu({&part, 1}, ComputeMode::kAuto, isa, &Pool(2));
}

// Working rows as the backend allocates them: on huge pages.
struct Rows {
  std::shared_ptr<char> x, y;
  ActivationRows Input(int64_t rows, int64_t cols) {
    if (x == nullptr) {
      x = *AllocatePacked(int64_t{4096} * 1536 * 2);
      auto* values = reinterpret_cast<uint16_t*>(x.get());
      std::fill(values, values + int64_t{4096} * 1536, ToBf16(0.01f));
    }
    return {x.get(), DType::kBF16, rows, cols, cols};
  }
  FloatRows Output(int64_t rows, int64_t cols) {
    if (y == nullptr) y = *AllocatePacked(int64_t{64} * 49152 * 4);
    return {reinterpret_cast<float*>(y.get()), rows, cols, cols};
  }
};

// Every matrix of the model; the head sees only `head_rows` rows.
void ModelStep(benchmark::State& state, Isa isa, DType dtype) {
  const int64_t rows = state.range(0), head_rows = state.range(1);
  std::vector<std::unique_ptr<PackedMatrix>> matrices;
  int64_t bytes = 0;
  double flops = 0;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    for (Shape shape : kLayer) matrices.push_back(RandomMatrix(shape, dtype, isa));
  }
  if (head_rows > 0) matrices.push_back(RandomMatrix(kHead, dtype, isa));
  for (const auto& matrix : matrices) bytes += matrix->bytes().total();
  for (const auto& matrix : matrices) {
    flops += 2.0 * static_cast<double>(matrix->in() * matrix->out() *
                                       (matrix->out() == kHead.out ? head_rows : rows));
  }
  Rows memory;
  for (auto _ : state) {
    for (const auto& matrix : matrices) {
      const int64_t count = matrix->out() == kHead.out ? head_rows : rows;
      GemmArgs args;
      args.weight = matrix.get();
      GemmCpu(args, memory.Input(count, matrix->in()), memory.Output(count, matrix->out()),
              Pool(2));
    }
  }
  state.SetBytesProcessed(state.iterations() * bytes);
  state.counters["flops"] =
      benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

// One matrix, from as many copies as make 300 MB ("cold") or from one ("hot").
void OneMatrix(benchmark::State& state, Isa isa, DType dtype) {
  const int64_t rows = state.range(0);
  const Shape shape{state.range(1), state.range(2)};
  const int64_t size = shape.out * RowBytes(dtype, shape.in);
  std::vector<std::unique_ptr<PackedMatrix>> copies;
  const int64_t count = state.range(3) != 0 ? std::max<int64_t>(1, 300'000'000 / size) : 1;
  for (int64_t i = 0; i < count; ++i) copies.push_back(RandomMatrix(shape, dtype, isa));
  Rows memory;
  size_t next = 0;
  for (auto _ : state) {
    GemmArgs args;
    args.weight = copies[next].get();
    GemmCpu(args, memory.Input(rows, shape.in), memory.Output(rows, shape.out), Pool(2));
    next = (next + 1) % copies.size();
  }
  state.SetBytesProcessed(state.iterations() * copies[0]->bytes().total());
  state.counters["flops"] =
      benchmark::Counter(2.0 * static_cast<double>(rows * shape.in * shape.out),
                         benchmark::Counter::kIsIterationInvariantRate);
}

struct Site {
  int64_t in;
  std::vector<int64_t> outs;  // fused parts, one op each
};
const Site kSites[] = {{576, {576, 192, 192}}, {576, {576}}, {576, {1536, 1536}}, {1536, {576}}};

// All sites of all layers: `adapters` adapters of one rank, each with `rows` rows in the step.
void DeltaStep(benchmark::State& state, Isa isa) {
  const int64_t adapters = state.range(0), rows = state.range(1), rank = state.range(2);
  std::vector<float> zeros(static_cast<size_t>(1536 * rank), 0.01f);
  std::vector<std::vector<std::unique_ptr<PackedDelta>>> ops(static_cast<size_t>(adapters));
  int64_t bytes = 0;
  for (auto& adapter : ops) {
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      for (const Site& site : kSites) {
        for (int64_t out : site.outs) {
          PackShare share;
          const LowRank op{{zeros.data(), DType::kF32, rank, site.in},
                           {zeros.data(), DType::kF32, out, rank},
                           1.0f};
          adapter.push_back(*PackDeltaCpu(op, ComputeMode::kAuto, isa, share));
          bytes += adapter.back()->cost().bytes.total();
        }
      }
    }
  }
  Rows memory;
  std::vector<DeltaSegment> segments;
  for (auto _ : state) {
    size_t op = 0;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      for (const Site& site : kSites) {
        segments.clear();
        int64_t width = 0;
        for (int64_t out : site.outs) width += out;
        for (int64_t a = 0; a < adapters; ++a) {
          int64_t column = 0;
          for (size_t part = 0; part < site.outs.size(); column += site.outs[part], ++part) {
            segments.push_back(
                {a * rows, (a + 1) * rows, column, ops[static_cast<size_t>(a)][op + part].get()});
          }
        }
        op += site.outs.size();
        ApplyCpu(segments, memory.Input(adapters * rows, site.in),
                 memory.Output(adapters * rows, width), Pool(2));
      }
    }
  }
  state.SetBytesProcessed(state.iterations() * bytes);
}

// One row for each of `adapters` 1-bit deltas of every linear site.
void SignStep(benchmark::State& state, Isa isa) {
  const int64_t adapters = state.range(0);
  std::mt19937 random(1);
  std::vector<uint32_t> bits(static_cast<size_t>(1536 * 576 / 32));
  for (uint32_t& word : bits) word = random();
  const float scale = 0.01f;
  int64_t bytes = 0;
  std::vector<std::vector<std::unique_ptr<PackedDelta>>> ops(static_cast<size_t>(adapters));
  for (auto& adapter : ops) {
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      for (const Site& site : kSites) {
        for (int64_t out : site.outs) {
          PackShare share;
          const SignBits op{
              {bits.data(), static_cast<size_t>(out * site.in / 32)}, {&scale, 1}, out, site.in, 1};
          adapter.push_back(*PackDeltaCpu(op, ComputeMode::kAuto, isa, share));
          bytes += out * site.in / 8;
        }
      }
    }
  }
  Rows memory;
  std::vector<DeltaSegment> segments;
  for (auto _ : state) {
    size_t op = 0;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      for (const Site& site : kSites) {
        segments.clear();
        int64_t width = 0;
        for (int64_t a = 0; a < adapters; ++a) {
          width = 0;
          for (size_t part = 0; part < site.outs.size(); width += site.outs[part], ++part) {
            segments.push_back({a, a + 1, width, ops[static_cast<size_t>(a)][op + part].get()});
          }
        }
        op += site.outs.size();
        ApplyCpu(segments, memory.Input(adapters, site.in), memory.Output(adapters, width),
                 Pool(2));
      }
    }
  }
  state.SetBytesProcessed(state.iterations() * bytes);
}

// Reading alone, from memory such as weights lie in: the machine's rate at this moment.
void StreamRead(benchmark::State& state) {
  constexpr int64_t kParts = 64, kLength = 300'000'000 / 8 / kParts;
  const std::shared_ptr<char> memory = *AllocatePacked(kParts * kLength * 8);
  std::memset(memory.get(), 1, kParts * kLength * 8);
  std::vector<uint64_t> sums(kParts);
  for (auto _ : state) {
    Pool(2).Run(kParts, [&](int64_t part, int) {
      uint64_t a = 0, b = 0, c = 0, d = 0;
      const uint64_t* at = reinterpret_cast<const uint64_t*>(memory.get()) + part * kLength;
      for (int64_t i = 0; i + 32 <= kLength; i += 32) {  // a word per line is enough to pull it in
        __builtin_prefetch(at + i + 256);
        __builtin_prefetch(at + i + 264);
        __builtin_prefetch(at + i + 272);
        __builtin_prefetch(at + i + 280);
        a += at[i];
        b += at[i + 8];
        c += at[i + 16];
        d += at[i + 24];
      }
      sums[static_cast<size_t>(part)] = a + b + c + d;
    });
    benchmark::DoNotOptimize(sums.data());
  }
  state.SetBytesProcessed(state.iterations() * kParts * kLength * 8);
}

void RegisterAll(Isa isa) {
  const std::string name(NameOf(isa));
  for (DType dtype : {DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1}) {
    const std::string type(InfoOf(dtype).name);
    auto* step = benchmark::RegisterBenchmark(
        ("step/" + name + "/" + type).c_str(),
        [=](benchmark::State& state) { ModelStep(state, isa, dtype); });
    for (int64_t rows : {1, 8, 16, 32, 128, 512}) step->Args({rows, std::min<int64_t>(rows, 32)});
    step->ArgNames({"rows", "head_rows"})->UseRealTime()->Unit(benchmark::kMillisecond);
    auto* one = benchmark::RegisterBenchmark(
        ("gemm/" + name + "/" + type).c_str(),
        [=](benchmark::State& state) { OneMatrix(state, isa, dtype); });
    for (Shape shape : kLayer) {
      for (int64_t rows : {1, 4, 8, 16, 32, 64, 128, 512})
        one->Args({rows, shape.in, shape.out, 1});
      for (int64_t rows : {1, 32, 128, 512}) one->Args({rows, shape.in, shape.out, 0});
    }
    one->ArgNames({"rows", "in", "out", "cold"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  }
  auto* delta = benchmark::RegisterBenchmark(
      ("delta/" + name).c_str(), [=](benchmark::State& state) { DeltaStep(state, isa); });
  for (int64_t rank : {8, 16, 64}) {
    delta->Args({1, 1, rank});
    delta->Args({1, 128, rank});
    delta->Args({4, 128, rank});
    if (rank <= 16) delta->Args({32, 1, rank});
  }
  benchmark::RegisterBenchmark(("signs/" + name).c_str(),
                               [=](benchmark::State& state) { SignStep(state, isa); })
      ->Arg(1)
      ->Arg(16)
      ->ArgNames({"adapters"})
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
  delta->ArgNames({"adapters", "rows", "rank"})->UseRealTime()->Unit(benchmark::kMillisecond);
}

}  // namespace
}  // namespace polyad::cpu

int main(int argc, char** argv) {
  using polyad::cpu::Isa;
  benchmark::RegisterBenchmark("stream_read", polyad::cpu::StreamRead)
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa <= polyad::cpu::BestIsa()) polyad::cpu::RegisterAll(isa);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
