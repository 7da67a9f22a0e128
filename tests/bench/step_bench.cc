// Times whole steps of a real model without server or scheduler: prefill chunks and decode steps,
// base rows and distinct adapters. Prints milliseconds (median of repeats) and tokens per second.
//   step_bench MODEL [ADAPTERS_DIR]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>

#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

double MedianMs(int repeats, const std::function<void()>& run) {
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
            .count());
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

using Leases = std::vector<std::shared_ptr<const AdapterVersion>>;

void TimeSteps(TestModel& test, int64_t num_rows, const Leases& leases, const char* what) {
  StepHarness harness(*test.model, 1);
  std::vector<TestSequence> sequences(static_cast<size_t>(num_rows));
  for (size_t i = 0; i < sequences.size(); ++i) {
    for (int64_t t = 0; t < 256; ++t) {
      sequences[i].tokens.push_back(
          static_cast<int32_t>((t * 7919 + static_cast<int64_t>(i) * 104729) % 20000));
    }
    sequences[i].adapter = leases.empty() ? nullptr : leases[i % leases.size()];
  }
  double prefill_ms = 0;
  for (size_t begin = 0; begin < sequences.size();
       begin += 4) {  // four prompts of 128 make one step
    std::vector<TestChunk> chunks;
    for (size_t i = begin; i < std::min(begin + 4, sequences.size()); ++i)
      chunks.push_back({&sequences[i], 128, 1});
    prefill_ms += MedianMs(1, [&] { harness.Step(chunks); });
  }
  std::vector<TestChunk> decode;
  for (TestSequence& sequence : sequences) decode.push_back({&sequence, 1, 1});
  const double decode_ms = MedianMs(64, [&] { harness.Step(decode); });
  const double total_s = (prefill_ms + 64 * decode_ms) / 1e3;
  std::printf(
      "%-9s %3ld rows: prefill %7.1f ms (%6.0f tok/s)  step %6.2f ms (%6.0f tok/s)  128+64: %6.0f "
      "tok/s\n",
      what, static_cast<long>(num_rows), prefill_ms,
      static_cast<double>(num_rows) * 128e3 / prefill_ms, decode_ms,
      static_cast<double>(num_rows) * 1e3 / decode_ms,
      static_cast<double>(num_rows) * 64 / total_s);
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "step_bench MODEL [ADAPTERS_DIR]\n");
    return 2;
  }
  BackendOptions options;
  options.num_threads = 2;
  if (const char* isa = std::getenv("POLYAD_ISA")) options.isa = isa;
  TestModel test = LoadTestModel(argv[1], "cpu", options, int64_t{512} << 20);
  std::printf("%s %s\n", test.backend->info().name.c_str(), test.backend->info().isa.c_str());
  TimeSteps(test, 32, {}, "warm-up");
  for (const int64_t rows : {1, 8, 32}) TimeSteps(test, rows, {}, "base");
  if (argc < 3) return 0;
  Leases leases;
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(argv[2]))
    paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  const double load_ms = MedianMs(1, [&] {
    for (const std::string& path : paths) {
      LoadAdapterSpec spec;
      spec.name = std::filesystem::path(path).filename().string();
      spec.path = path;
      if (!test.adapters->Load(spec, nullptr).ok()) std::abort();
      leases.push_back(*test.adapters->Acquire(spec.name, ""));
    }
  });
  std::printf("loaded %zu adapters, %.1f ms each, %.1f MB\n", leases.size(),
              load_ms / static_cast<double>(leases.size()),
              static_cast<double>(test.adapters->resident_bytes()) / 1e6);
  for (const int64_t rows : {1, 8, 32}) TimeSteps(test, rows, leases, "distinct");
  TimeSteps(test, 32, {leases[0]}, "one");
  return 0;
}

}  // namespace
}  // namespace polyad

int main(int argc, char** argv) { return polyad::Main(argc, argv); }
