#include "tests/kernels/cuda/conformance.h"

#include <cmath>
#include <memory>
#include <vector>

#include "gtest/gtest.h"

namespace polyad::test {
namespace {

// |actual - expected| / |expected|
double RelativeError(const std::vector<double>& actual, const std::vector<double>& expected) {
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return norm > 0 ? std::sqrt(error / norm) : 0.0;
}

}  // namespace

void ExpectConforms(const OpCase& op, Backend& backend, Backend& reference) {
  const std::unique_ptr<OpRun> got = op.make(backend);
  const std::unique_ptr<OpRun> want = op.make(reference);
  got->Run();
  want->Run();
  const std::vector<double> actual = got->Output();
  const std::vector<double> expected = want->Output();
  const std::vector<double> tolerance = want->Tolerance();
  ASSERT_EQ(actual.size(), expected.size()) << op.name;
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_LE(std::abs(actual[i] - expected[i]), tolerance[i])
        << op.name << " element " << i << ": expected " << expected[i] << ", got " << actual[i];
  }
  EXPECT_LE(RelativeError(actual, expected), want->NormTolerance()) << op.name;
  got->Run();
  EXPECT_EQ(got->Output(), actual) << op.name << ": something is left over between calls";
}

}  // namespace polyad::test
