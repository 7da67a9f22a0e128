// Adapters' ops of the oracle against numbers worked by hand.

#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/reference/reference_backend.h"

namespace polyad::ref {
namespace {

using testing::ElementsAre;
using testing::FloatNear;

using Values = std::vector<float>;

TensorView View(const Values& values, int64_t rows) {
  return {values.data(), DType::kF32, rows, static_cast<int64_t>(values.size()) / rows};
}

class ReferenceDeltaTest : public testing::Test {
 protected:
  std::unique_ptr<PackedDelta> Pack(const DeltaOp& op) {
    PackShare share;
    return *backend_.PackDelta(op, share);
  }
  // y + op(x) for one row.
  Values Apply(const DeltaOp& op, Values x, Values y, float scale = 1.0f) {
    const auto packed = Pack(op);
    const DeltaSegment segment{0, 1, 0, packed.get(), scale};
    const auto in = static_cast<int64_t>(x.size());
    const auto out = static_cast<int64_t>(y.size());
    backend_.Apply(std::span(&segment, 1), {x.data(), DType::kF32, 1, in, in},
                   {y.data(), 1, out, out});
    return y;
  }
  Values TransformInput(const DeltaOp& op, Values x) {
    const auto packed = Pack(op);
    const DeltaSegment segment{0, 1, 0, packed.get()};
    const auto in = static_cast<int64_t>(x.size());
    backend_.TransformInput(std::span(&segment, 1), {x.data(), DType::kF32, 1, in, in});
    return x;
  }
  Values TransformOutput(const DeltaOp& op, Values y, int64_t y_column = 0) {
    const auto packed = Pack(op);
    const DeltaSegment segment{0, 1, y_column, packed.get()};
    const auto out = static_cast<int64_t>(y.size());
    backend_.TransformOutput(std::span(&segment, 1), {y.data(), 1, out, out});
    return y;
  }
  Values TransformEmbedding(const DeltaOp& op, int32_t token, Values row) {
    const auto packed = Pack(op);
    const DeltaSegment segment{0, 1, 0, packed.get()};
    const auto cols = static_cast<int64_t>(row.size());
    backend_.TransformEmbedding(std::span(&segment, 1), std::span(&token, 1),
                                {row.data(), 1, cols, cols});
    return row;
  }

  ReferenceBackend backend_{ComputeMode::kF32};
};

TEST_F(ReferenceDeltaTest, LowRankScalesTheMiddleAndTheOutput) {
  const Values a = {1, 0, 0, 1};  // the middle is x
  const Values b = {1, 1, 1, -1};
  const Values inner = {2, 3};
  const Values outer = {1, 10};
  LowRank op{View(a, 2), View(b, 2), 0.5f};
  EXPECT_THAT(Apply(op, {4, 6}, {0, 100}), ElementsAre(5, 99));
  op.inner = inner;
  EXPECT_THAT(Apply(op, {4, 6}, {0, 0}), ElementsAre(13, -5));  // middle 8, 18
  op.outer = outer;
  EXPECT_THAT(Apply(op, {4, 6}, {0, 0}), ElementsAre(13, -50));
  EXPECT_THAT(Apply(op, {4, 6}, {0, 0}, 2.0f), ElementsAre(26, -100));
}

TEST_F(ReferenceDeltaTest, RowScalesMultiplyTheSegmentsScale) {
  const Values bias = {1, 2};
  const auto op = Pack(Bias{bias});
  const Values row_scale = {3, 0};
  const DeltaSegment segment{1, 3, 0, op.get(), 0.5f, row_scale.data()};
  Values x(3);
  Values y(6, 0.0f);
  backend_.Apply(std::span(&segment, 1), {x.data(), DType::kF32, 3, 1, 1}, {y.data(), 3, 2, 2});
  EXPECT_THAT(y, ElementsAre(0, 0, 1.5f, 3, 0, 0));
}

TEST_F(ReferenceDeltaTest, DenseIsAMatrixAndDenseRowsIsSomeOfIt) {
  const Values matrix = {1, 2, 3, 4};
  EXPECT_THAT(Apply(Dense{View(matrix, 2), 10.0f}, {1, 1}, {1, 1}), ElementsAre(31, 71));
  const std::vector<int32_t> rows = {0, 2};
  EXPECT_THAT(Apply(DenseRows{rows, View(matrix, 2), 4}, {1, 1}, {1, 1, 1, 1}),
              ElementsAre(4, 1, 8, 1));
}

TEST_F(ReferenceDeltaTest, SparseAddsItsStoredEntries) {
  const std::vector<int32_t> row_begin = {0, 2, 2, 3};
  const std::vector<int32_t> columns = {0, 2, 1};
  const Values values = {5, 7, -1};
  EXPECT_THAT(Apply(Sparse{row_begin, columns, values, 3}, {1, 10, 100}, {0, 1, 2}),
              ElementsAre(705, 1, -8));
}

TEST_F(ReferenceDeltaTest, SignBitsAreOnesAndMinusOnesFromTheLowestBit) {
  const std::vector<uint32_t> bits = {0b101, 0b010};
  const Values one = {2};
  EXPECT_THAT(Apply(SignBits{bits, one, 2, 3}, {1, 10, 100}, {0, 0}), ElementsAre(182, -182));
  const Values per_row = {2, 3};
  EXPECT_THAT(Apply(SignBits{bits, per_row, 2, 3}, {1, 10, 100}, {0, 0}), ElementsAre(182, -273));
}

TEST_F(ReferenceDeltaTest, SignBitsHaveAScalePerRowAndGroup) {
  const std::vector<uint32_t> bits = {~0u, 0};  // 32 ones, then 32 minus ones
  const Values scale = {1, 10};
  EXPECT_THAT(Apply(SignBits{bits, scale, 1, 64, 2}, Values(64, 1.0f), {0}), ElementsAre(-288));
}

TEST_F(ReferenceDeltaTest, KroneckerIsTheKroneckerProductOfItsFactors) {
  const Values c = {1, 2};        // [1, 2]
  const Values d = {1, 0, 1, 3};  // [2, 2];  C kron D = [[1 0 2 0], [1 3 2 6]]
  EXPECT_THAT(Apply(Kronecker{View(c, 1), View(d, 2), 0.5f}, {1, 10, 100, 1000}, {0, 0}),
              ElementsAre(100.5f, 3115.5f));
}

TEST_F(ReferenceDeltaTest, BottleneckAddsItsScaledUpProjection) {
  const Values down = {1, 1, 1, -1};  // [2, 2]
  const Values up = {1, 1, 2, 0, 0, 3};
  Bottleneck op;
  op.down = View(down, 2);
  op.up = View(up, 3);
  EXPECT_THAT(Apply(op, {1, 2}, {0, 0, 0}), ElementsAre(3, 6, 0));  // relu(3), relu(-1)
  const Values down_bias = {0, 2};
  const Values up_bias = {0, 0, 1};
  op.down_bias = down_bias;
  op.up_bias = up_bias;
  EXPECT_THAT(Apply(op, {1, 2}, {0, 0, 0}), ElementsAre(4, 6, 4));
  const Values scale = {4};
  op.scale = scale;
  EXPECT_THAT(Apply(op, {1, 2}, {1, 1, 1}), ElementsAre(17, 25, 17));
  const Values scales = {1, 0, -1};
  op.scale = scales;
  EXPECT_THAT(Apply(op, {1, 2}, {1, 1, 1}, 0.5f), ElementsAre(3, 1, -1));
}

TEST_F(ReferenceDeltaTest, BottleneckNormsItsInputFirst) {
  const Values down = {1, 0, 0, 1};
  const Values weight = {1, 10};
  const Values bias = {0, 5};
  Bottleneck op;
  op.down = View(down, 2);
  op.up = View(down, 2);
  op.activation = ActivationKind::kIdentity;
  op.norm = {weight, bias, 3.0f};  // of (2, 4): mean 3, variance 1, divisor 2
  EXPECT_THAT(Apply(op, {2, 4}, {0, 0}), ElementsAre(-0.5f, 10));
}

TEST_F(ReferenceDeltaTest, ABottleneckOnInputsAddsToThem) {
  const Values down = {1, 1};
  const Values up = {1, -1};
  Bottleneck op;
  op.down = View(down, 1);
  op.up = View(up, 2);
  EXPECT_THAT(TransformInput(op, {3, 4}), ElementsAre(10, -3));
}

TEST_F(ReferenceDeltaTest, InputAndOutputScalesMultiply) {
  const Values scale = {2, -1};
  EXPECT_THAT(TransformInput(InputScale{scale}, {3, 4}), ElementsAre(6, -4));
  EXPECT_THAT(TransformOutput(OutputScale{scale}, {9, 3, 4, 9}, 1), ElementsAre(9, 6, -4, 9));
}

TEST_F(ReferenceDeltaTest, BlockRotationMultipliesRowVectorsInItsOrder) {
  const Values blocks = {1, 2, 3, 4, 0, 1, 1, 0};
  BlockRotation op{{}, blocks, 2, 4};
  // (1, 10) [[1 2] [3 4]] and (100, 1000) swapped
  EXPECT_THAT(TransformInput(op, {1, 10, 100, 1000}), ElementsAre(31, 42, 1000, 100));
  const std::vector<int32_t> order = {3, 0, 1, 2};
  op.order = order;
  // u = (1000, 1, 10, 100), v = (1003, 2004, 100, 10), back to places 3, 0, 1, 2
  EXPECT_THAT(TransformInput(op, {1, 10, 100, 1000}), ElementsAre(2004, 100, 10, 1003));
  const Values shared = {0, 1, 1, 0};
  EXPECT_THAT(TransformInput(BlockRotation{{}, shared, 2, 4}, {1, 2, 3, 4}),
              ElementsAre(2, 1, 4, 3));
}

TEST_F(ReferenceDeltaTest, PairRotationTurnsHalvesOfEachGroup) {
  const Values f = {1, 2, 3, 4};
  const Values g = {10, 20, 30, 40};
  // rot(1, 2, 3, 4) = (-3, -4, 1, 2) as one group, (-2, 1, -4, 3) as two
  EXPECT_THAT(TransformOutput(PairRotation{f, g, 4}, {1, 2, 3, 4}), ElementsAre(-29, -76, 39, 96));
  EXPECT_THAT(TransformOutput(PairRotation{f, g, 2}, {1, 2, 3, 4}),
              ElementsAre(-19, 24, -111, 136));
}

TEST_F(ReferenceDeltaTest, EmbeddingRowsReplaceTheirTokensOnly) {
  const std::vector<int32_t> ids = {2, 5};
  const Values rows = {1, 2, 3, 4};
  const EmbeddingRows op{ids, View(rows, 2)};
  EXPECT_THAT(TransformEmbedding(op, 5, {9, 9}), ElementsAre(3, 4));
  EXPECT_THAT(TransformEmbedding(op, 4, {9, 9}), ElementsAre(9, 9));
}

TEST_F(ReferenceDeltaTest, EmbeddingLowRankAddsATokensColumn) {
  const Values a = {1, 2, 3};  // rank 1, vocabulary 3
  const Values b = {1, -1};
  const Values column_scale = {1, 10};
  EmbeddingLowRank op{View(a, 1), View(b, 2), 2.0f};
  EXPECT_THAT(TransformEmbedding(op, 1, {9, 9}), ElementsAre(13, 5));
  op.column_scale = column_scale;
  EXPECT_THAT(TransformEmbedding(op, 1, {9, 9}), ElementsAre(13, 50));
  EXPECT_THAT(TransformEmbedding(op, 3, {9, 9}), ElementsAre(9, 9)) << "a token beyond A";
}

TEST_F(ReferenceDeltaTest, ASecondSoftmaxAddsItsGatedValues) {
  Values q = {1, 0};
  Values kv = {std::log(3.0f), 0, 4, 0, 0, 0, 8, 4};  // weights 3/4 and 1/4
  Values out = {1, 1};
  const Values gate = {2};
  GatedPrefixArgs args;
  args.q = {q.data(), 1, 2, 2};
  args.kv = {kv.data(), 2, 4, 4};
  args.out = {out.data(), DType::kF32, 1, 2, 2};
  args.num_heads = args.num_kv_heads = 1;
  args.head_dim = 2;
  args.gate = gate.data();
  backend_.AddGatedPrefix(args);
  EXPECT_THAT(out, ElementsAre(FloatNear(11, 1e-5f), FloatNear(3, 1e-5f)));
}

TEST_F(ReferenceDeltaTest, AnOpKeepsItsOwnCopyOfWhatItWasMadeFrom) {
  Values bias = {1, 2};
  const auto op = Pack(Bias{bias});
  bias = {0, 0};
  const DeltaSegment segment{0, 1, 0, op.get()};
  Values x(1);
  Values y(2, 0.0f);
  backend_.Apply(std::span(&segment, 1), {x.data(), DType::kF32, 1, 1, 1}, {y.data(), 1, 2, 2});
  EXPECT_THAT(y, ElementsAre(1, 2));
  EXPECT_EQ(op->cost().bytes, FloatBytes(2));
}

}  // namespace
}  // namespace polyad::ref
