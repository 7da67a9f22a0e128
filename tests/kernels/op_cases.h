#pragma once

// One table of ops and shapes with two uses: conformance of every backend against the
// double-precision reference (op_conformance_test.cc), and the micro-benchmarks
// (tests/bench/op_bench.cc). A case makes its inputs from a seed, all of them bf16 numbers so that
// both compute modes see the same ones; its tolerance comes from the norms of those inputs.

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/api/backend.h"

namespace polyad::test {

// A case on one backend, ready to run. Run may be repeated; outputs are then the same again.
class OpRun {
 public:
  virtual ~OpRun() = default;
  virtual void Run() = 0;
  virtual std::vector<double> Output() const = 0;
  // How far each output may lie from the exact one, in the mode of the backend.
  virtual std::vector<double> Tolerance() const = 0;
  // A bound on |error| / |exact| over all outputs, where the worst case of one output says little.
  virtual double NormTolerance() const { return std::numeric_limits<double>::infinity(); }
};

struct OpCase {
  std::string name;  // "rms_norm/rows:3/cols:576"
  double flops = 0;  // of one Run
  double bytes = 0;  // that a Run must read or write at least, from cold memory
  std::function<std::unique_ptr<OpRun>(Backend&)> make;
};

// Small and awkward shapes, every branch of every op.
std::vector<OpCase> ConformanceCases();

// The shapes of SmolLM2-135M (hidden 576, 9 heads of 64 over 3, mlp 1536, vocabulary 49152) at
// serving sizes.
std::vector<OpCase> BenchmarkCases();

}  // namespace polyad::test
