// Times whole steps of a real model without server or scheduler: prefill chunks and decode steps,
// base rows and distinct adapters. Prints milliseconds (median of repeats) and tokens per second.
//   step_bench MODEL [ADAPTERS_DIR]
//   step_bench MODEL --families     32 rows of 8 families, four of each, against 32 of LoRA
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string_view>

#include "tests/bench/mixed_families.h"
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

constexpr int64_t kFamilyRows = 32;

// Decode steps only, the sets of rows in turn, so that a slow spell of the machine meets them all.
void TimeDecode(TestModel& test, const std::vector<Leases>& sets, std::vector<double>* best_ms) {
  std::vector<std::unique_ptr<StepHarness>> harnesses;
  std::vector<std::vector<TestSequence>> rows(sets.size());
  std::vector<std::vector<TestChunk>> steps(sets.size());
  for (size_t i = 0; i < sets.size(); ++i) {
    harnesses.push_back(std::make_unique<StepHarness>(*test.model, 1));
    rows[i].resize(kFamilyRows);
    for (size_t row = 0; row < rows[i].size(); ++row) {
      for (int64_t t = 0; t < 256; ++t) {
        rows[i][row].tokens.push_back(
            static_cast<int32_t>((t * 7919 + static_cast<int64_t>(row) * 104729) % 20000));
      }
      rows[i][row].adapter = sets[i][row % sets[i].size()];
      harnesses[i]->Step({{&rows[i][row], 32, 1}});
      steps[i].push_back({&rows[i][row], 1, 1});
    }
  }
  std::vector<std::vector<double>> times(sets.size());
  for (int round = 0; round < 40; ++round) {
    for (size_t i = 0; i < sets.size(); ++i) {
      times[i].push_back(MedianMs(1, [&] { harnesses[i]->Step(steps[i]); }));
    }
  }
  for (std::vector<double>& set : times) {
    std::sort(set.begin(), set.end());
    best_ms->push_back(set[set.size() / 4]);
  }
}

double MegabytesOf(const Leases& leases) {
  int64_t bytes = 0;
  for (const auto& lease : leases) bytes += lease == nullptr ? 0 : lease->cost().bytes.total();
  return static_cast<double>(bytes) / 1e6;
}

void TimeFamilies(TestModel& test) {
  const BenchFamily families[] = {BenchFamily::kLora,      BenchFamily::kDora,
                                  BenchFamily::kIa3,       BenchFamily::kBottleneck,
                                  BenchFamily::kSparse,    BenchFamily::kKronecker,
                                  BenchFamily::kSoftPrompt};
  uint32_t seed = 1;
  const auto make = [&](BenchFamily family, int64_t rank) {
    return MakeBenchAdapter(*test.backend, test.model->spec(), family, rank, seed++);
  };
  std::vector<std::string> names = {"base"};
  std::vector<Leases> sets = {Leases(1)};  // nobody's adapter
  Leases mixed;
  for (const BenchFamily family : families) {
    Leases copies;
    for (int i = 0; i < 4; ++i) copies.push_back(make(family, 16));
    mixed.insert(mixed.end(), copies.begin(), copies.end());
    if (family == BenchFamily::kSoftPrompt) mixed.insert(mixed.end(), copies.begin(), copies.end());
    names.push_back(std::string("4x ") + NameOf(family));
    copies.resize(kFamilyRows);  // the other rows are the base model's
    sets.push_back(std::move(copies));
  }
  const auto all_lora = [&](int64_t rank) {
    Leases leases;
    for (int64_t i = 0; i < kFamilyRows; ++i) leases.push_back(make(BenchFamily::kLora, rank));
    names.push_back("32x lora r" + std::to_string(rank));
    sets.push_back(std::move(leases));
    return MegabytesOf(sets.back());
  };
  const double full = all_lora(16);
  all_lora(static_cast<int64_t>(16 * MegabytesOf(mixed) / full + 0.5));
  names.push_back("8 families");
  sets.push_back(std::move(mixed));
  std::vector<double> ms;
  TimeDecode(test, sets, &ms);
  for (size_t i = 0; i < sets.size(); ++i) {
    std::printf("%-14s %6.1f MB  step %6.2f ms (lower quartile of 40), %5.1f%% of base\n",
                names[i].c_str(), MegabytesOf(sets[i]), ms[i], 100 * ms[0] / ms[i]);
  }
  const size_t last = sets.size() - 1;
  std::printf("8 families: %.1f%% of the rate of LoRA r16, %.1f%% of LoRA of the same bytes\n",
              100 * ms[last - 2] / ms[last], 100 * ms[last - 1] / ms[last]);
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "step_bench MODEL [ADAPTERS_DIR | --families]\n");
    return 2;
  }
  BackendOptions options;
  options.num_threads = 2;
  if (const char* isa = std::getenv("POLYAD_ISA")) options.isa = isa;
  TestModel test = LoadTestModel(argv[1], "cpu", options, int64_t{512} << 20);
  std::printf("%s %s\n", test.backend->info().name.c_str(), test.backend->info().isa.c_str());
  if (argc > 2 && std::string_view(argv[2]) == "--families") {
    TimeFamilies(test);
    return 0;
  }
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
              static_cast<double>(test.adapters->resident_bytes().total()) / 1e6);
  for (const int64_t rows : {1, 8, 32}) TimeSteps(test, rows, leases, "distinct");
  TimeSteps(test, 32, {leases[0]}, "one");
  return 0;
}

}  // namespace
}  // namespace polyad

int main(int argc, char** argv) { return polyad::Main(argc, argv); }
