// Micro-benchmarks of the op table: time, GFLOP/s and GB/s of one call, to hold against the
// machine's measured roof (docs/notes). Inputs stay in cache between calls where they fit.
//   op_bench [--backend=cpu|cuda] [--isa=auto] [--threads=0] [--mode=auto|f32]
//            [--benchmark_filter=attention]
// On a GPU rows lie in its memory, and a call is timed to the end of its launches.

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "kernels/backend_factory.h"
#include "tests/bench/delta_benchmarks.h"
#include "tests/kernels/cuda/staged_backend.h"
#include "tests/kernels/op_cases.h"

namespace polyad::test {
namespace {

// Takes "--name=value" out of the arguments; the last one counts.
std::string TakeFlag(std::string_view name, std::string value, int& argc, char** argv) {
  const std::string prefix = "--" + std::string(name) + "=";
  int kept = 0;
  for (int i = 0; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.substr(0, prefix.size()) == prefix) {
      value = argument.substr(prefix.size());
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  return value;
}

void RunCase(benchmark::State& state, const OpCase& op, Backend& backend) {
  const std::unique_ptr<OpRun> run = op.make(backend);
  for (auto _ : state) run->Run();
  const auto flags = benchmark::Counter::kIsIterationInvariantRate;
  if (op.flops > 0) state.counters["GFLOP/s"] = benchmark::Counter(op.flops * 1e-9, flags);
  if (op.bytes > 0) state.counters["GB/s"] = benchmark::Counter(op.bytes * 1e-9, flags);
}

int Main(int argc, char** argv) {
  BackendOptions options;
  options.isa = TakeFlag("isa", "auto", argc, argv);
  options.num_threads = std::atoi(TakeFlag("threads", "0", argc, argv).c_str());
  options.mode =
      TakeFlag("mode", "auto", argc, argv) == "f32" ? ComputeMode::kF32 : ComputeMode::kAuto;
  options.cuda_plugin = TakeFlag("cuda-plugin", "", argc, argv);
  const std::string name = TakeFlag("backend", "cpu", argc, argv);
  const absl::StatusOr<std::unique_ptr<Backend>> made = MakeBackend(name, options);
  if (!made.ok()) {
    std::fprintf(stderr, "%s\n", made.status().ToString().c_str());
    return 1;
  }
  StagedBackend on_device(**made, StagedBackend::Rows::kResident);
  Backend& backend = name == "cuda" ? on_device : **made;
  const std::vector<OpCase> cases = BenchmarkCases();
  for (const OpCase& op : cases) {
    benchmark::RegisterBenchmark(op.name.c_str(),
                                 [&](benchmark::State& state) { RunCase(state, op, backend); })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  }
  RegisterDeltaBenchmarks(backend);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace polyad::test

int main(int argc, char** argv) { return polyad::test::Main(argc, argv); }
