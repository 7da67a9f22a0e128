// polyad_sim --first SEED --seeds COUNT [--operations N] [--shares-memory 1]: runs the simulator
// over a range of seeds, short histories or those of N operations, K/V with memory of its own or
// sharing it with adapters; exits 1 at the first broken promise.

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/sim/simulation.h"

int main(int argc, char** argv) {
  unsigned long long first = 1;
  unsigned long long count = 1000;
  long long num_operations = 0;
  bool shares_memory = false;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--first") == 0) first = std::strtoull(argv[i + 1], nullptr, 10);
    if (std::strcmp(argv[i], "--seeds") == 0) count = std::strtoull(argv[i + 1], nullptr, 10);
    if (std::strcmp(argv[i], "--operations") == 0) {
      num_operations = std::strtoll(argv[i + 1], nullptr, 10);
    }
    if (std::strcmp(argv[i], "--shares-memory") == 0) {
      shares_memory = std::strcmp(argv[i + 1], "1") == 0;
    }
  }
  for (unsigned long long seed = first; seed < first + count; ++seed) {
    const polyad::SimulationResult result = polyad::Simulate({seed, num_operations, shares_memory});
    if (!result.failure.empty()) {
      std::printf("seed %llu: %s\n", seed, result.failure.c_str());
      return 1;
    }
  }
  std::printf("%llu seeds from %llu: every promise held\n", count, first);
  return 0;
}
