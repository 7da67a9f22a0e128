#pragma once

// Faults that tests plant into kernels, one at a time, to show that they would be found
// (tests/kernels/cuda/mutant_test.cc). SIMT_MUTATE(name, right, wrong) is `right` unless the mutant
// `name` is planted; SIMT_UNLESS(name) leaves out the statement behind it then. For the CUDA
// compiler both are the right code and nothing else. Names are unique string literals; a test
// compares those in the sources with those in its table. Plant between launches only.

#include <cstdint>
#include <string_view>
#include <type_traits>

namespace polyad::simt {

// FNV-1a, so that a planted mutant costs one comparison.
constexpr uint64_t MutantId(std::string_view name) {
  uint64_t hash = 14695981039346656037ull;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return hash;
}

#if defined(__CUDACC__)
#define SIMT_MUTATE(name, right, wrong) (right)
#define SIMT_UNLESS(name)
#else
inline uint64_t planted_mutant = 0;  // 0: none

#define SIMT_MUTATE(name, right, wrong)                                            \
  (::polyad::simt::planted_mutant ==                                               \
           std::integral_constant<uint64_t, ::polyad::simt::MutantId(name)>::value \
       ? (wrong)                                                                   \
       : (right))
#define SIMT_UNLESS(name)               \
  if (::polyad::simt::planted_mutant != \
      std::integral_constant<uint64_t, ::polyad::simt::MutantId(name)>::value)
#endif

}  // namespace polyad::simt
