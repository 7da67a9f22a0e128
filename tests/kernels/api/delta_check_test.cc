#include "kernels/api/delta_check.h"

#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"

// One refusal per rule, each beside the op that is accepted without it.

namespace polyad {
namespace {

const std::vector<float> kZeros(4096, 0.0f);

std::span<const float> Vector(size_t size) { return std::span(kZeros).first(size); }
TensorView Matrix(int64_t rows, int64_t cols, DType dtype = DType::kF32) {
  return {kZeros.data(), dtype, rows, cols};
}

void ExpectAccepted(const DeltaOp& op) {
  EXPECT_TRUE(CheckDeltaOp(op).ok()) << NameOf(op) << ": " << CheckDeltaOp(op);
}
// The message names the op and says what was wanted.
void ExpectRefused(const DeltaOp& op, const std::string& words) {
  const absl::Status status = CheckDeltaOp(op);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << NameOf(op) << ": " << words;
  EXPECT_NE(std::string(status.message()).find(words), std::string::npos) << status;
}

TEST(CheckDeltaOpTest, MatricesAreFloatsAndNotEmpty) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    ExpectAccepted(Dense{Matrix(2, 3, dtype)});
  }
  ExpectRefused(Dense{Matrix(2, 32, DType::kQ8_0)}, "f32, f16 or bf16");
  ExpectRefused(Dense{Matrix(0, 3)}, "dense: expected a matrix, got [0, 3]");
  ExpectRefused(Dense{Matrix(2, 0)}, "got [2, 0]");
  ExpectRefused(Dense{{nullptr, DType::kF32, 2, 3}}, "matrix");
}

TEST(CheckDeltaOpTest, LowRankFactorsChain) {
  ExpectAccepted(LowRank{Matrix(4, 8), Matrix(6, 4), 1.0f, Vector(4), Vector(6)});
  ExpectRefused(LowRank{Matrix(4, 8), Matrix(6, 3)}, "A [4, 8], B [6, 3]");
  ExpectRefused(LowRank{Matrix(0, 8), Matrix(6, 0)}, "low rank: expected a matrix");
  ExpectRefused(LowRank{Matrix(4, 8), Matrix(6, 4, DType::kQ4_0)}, "low rank");
  ExpectRefused(LowRank{Matrix(4, 8), Matrix(6, 4), 1.0f, Vector(5)}, "rank and out");
  ExpectRefused(LowRank{Matrix(4, 8), Matrix(6, 4), 1.0f, {}, Vector(5)}, "rank and out");
}

TEST(CheckDeltaOpTest, DenseRowsAreAscendingDistinctAndInside) {
  const std::vector<int32_t> rows = {0, 5}, twice = {5, 5}, back = {5, 0}, outside = {0, 6},
                             negative = {-1, 0};
  ExpectAccepted(DenseRows{rows, Matrix(2, 3), 6});
  ExpectRefused(DenseRows{rows, Matrix(3, 3), 6}, "dense rows");
  for (const auto& wrong : {twice, back, outside, negative}) {
    ExpectRefused(DenseRows{wrong, Matrix(2, 3), 6}, "ascending row index below out");
  }
}

TEST(CheckDeltaOpTest, SparseRowsCoverTheValuesInOrder) {
  const std::vector<int32_t> begin = {0, 2, 3}, columns = {0, 4, 1};
  ExpectAccepted(Sparse{begin, columns, Vector(3), 5});
  const std::vector<int32_t> late = {1, 2, 3}, early = {0, 2, 2}, down = {0, 3, 2, 3},
                             beyond = {0, 4, 3}, below = {0, -1, 3}, none = {0};
  ExpectRefused(Sparse{late, columns, Vector(3), 5}, "row_begin from 0 to nnz");
  ExpectRefused(Sparse{early, columns, Vector(3), 5}, "row_begin from 0 to nnz");
  ExpectRefused(Sparse{none, columns, Vector(3), 5}, "row_begin from 0 to nnz");
  ExpectRefused(Sparse{begin, columns, Vector(4), 5}, "row_begin from 0 to nnz");
  ExpectRefused(Sparse{begin, columns, Vector(3), 0}, "row_begin from 0 to nnz");
  const std::vector<int32_t> rising = {0, 1, 4};
  ExpectRefused(Sparse{down, rising, Vector(3), 5}, "ascending row_begin");
  ExpectRefused(Sparse{beyond, columns, Vector(3), 5}, "ascending row_begin");
  ExpectRefused(Sparse{below, columns, Vector(3), 5}, "ascending row_begin");
}

TEST(CheckDeltaOpTest, SparseColumnsAscendInsideEachRow) {
  const std::vector<int32_t> begin = {0, 2, 3}, twice = {4, 4, 1}, back = {4, 0, 1},
                             outside = {0, 5, 1}, negative = {-1, 0, 1};
  for (const auto& wrong : {twice, back, outside, negative}) {
    ExpectRefused(Sparse{begin, wrong, Vector(3), 5}, "ascending columns below in");
  }
}

TEST(CheckDeltaOpTest, SignBitsHaveAWordFor32InputsAndAScaleForEachRowAndGroup) {
  const std::vector<uint32_t> words(64);
  const auto bits = [&words](size_t size) { return std::span(words).first(size); };
  ExpectAccepted(SignBits{bits(6), Vector(1), 3, 33});
  ExpectAccepted(SignBits{bits(6), Vector(3), 3, 33});
  ExpectAccepted(SignBits{bits(6), Vector(6), 3, 64, 2});
  ExpectRefused(SignBits{bits(5), Vector(1), 3, 33}, "words");
  ExpectRefused(SignBits{bits(6), Vector(2), 3, 33}, "one scale or out");
  ExpectRefused(SignBits{bits(6), Vector(3), 3, 64, 2}, "groups of a multiple of 32");
  ExpectRefused(SignBits{bits(6), Vector(6), 3, 48, 2}, "groups of a multiple of 32");
  ExpectRefused(SignBits{bits(6), Vector(9), 3, 64, 3}, "groups of a multiple of 32");
  ExpectRefused(SignBits{bits(6), Vector(1), 0, 33}, "shape");
  ExpectRefused(SignBits{bits(6), Vector(1), 3, 0}, "shape");
  ExpectRefused(SignBits{bits(6), Vector(1), 3, 33, 0}, "shape");
}

TEST(CheckDeltaOpTest, KroneckerTakesTwoMatrices) {
  ExpectAccepted(Kronecker{Matrix(2, 3), Matrix(4, 5)});
  ExpectRefused(Kronecker{Matrix(0, 3), Matrix(4, 5)}, "kronecker");
  ExpectRefused(Kronecker{Matrix(2, 3), Matrix(4, 0)}, "kronecker");
}

TEST(CheckDeltaOpTest, VectorsAreNotEmpty) {
  ExpectAccepted(Bias{Vector(3)});
  ExpectRefused(Bias{}, "bias");
  ExpectRefused(InputScale{}, "input scale");
  ExpectRefused(OutputScale{}, "output scale");
}

TEST(CheckDeltaOpTest, BottleneckFactorsChainAndVectorsFit) {
  Bottleneck op;
  op.down = Matrix(4, 8);
  op.up = Matrix(6, 4);
  ExpectAccepted(op);
  const auto refused = [&op](auto change, const char* words) {
    Bottleneck wrong = op;
    change(wrong);
    ExpectRefused(wrong, words);
  };
  refused([](Bottleneck& wrong) { wrong.up = Matrix(6, 5); }, "[4, 8] and [6, 5]");
  refused([](Bottleneck& wrong) { wrong.down = Matrix(4, 0); }, "bottleneck: expected a matrix");
  refused([](Bottleneck& wrong) { wrong.up.data = nullptr; }, "bottleneck: expected a matrix");
  refused([](Bottleneck& wrong) { wrong.down_bias = Vector(8); }, "vectors of width");
  refused([](Bottleneck& wrong) { wrong.up_bias = Vector(4); }, "vectors of width");
  refused([](Bottleneck& wrong) { wrong.scale = Vector(2); }, "vectors of width");
  refused([](Bottleneck& wrong) { wrong.norm.weight = Vector(4); }, "vectors of width");
  refused([](Bottleneck& wrong) { wrong.norm.bias = Vector(8); }, "vectors of width");
  op.down_bias = Vector(4);
  op.up_bias = Vector(6);
  op.scale = Vector(6);
  op.norm.weight = op.norm.bias = Vector(8);
  ExpectAccepted(op);
}

TEST(CheckDeltaOpTest, BlockRotationsTileTheInputOnce) {
  const std::vector<int32_t> order = {3, 1, 0, 2, 5, 4}, twice = {3, 1, 0, 2, 5, 5},
                             outside = {3, 1, 0, 2, 6, 4}, negative = {3, 1, 0, 2, -1, 4},
                             few = {1, 0};
  ExpectAccepted(BlockRotation{{}, Vector(12), 2, 6});
  ExpectAccepted(BlockRotation{order, Vector(4), 2, 6});
  ExpectRefused(BlockRotation{{}, Vector(8), 2, 6}, "blocks");
  ExpectRefused(BlockRotation{{}, Vector(16), 4, 6}, "blocks");
  ExpectRefused(BlockRotation{{}, Vector(0), 0, 6}, "blocks");
  ExpectRefused(BlockRotation{{}, Vector(4), 2, 0}, "blocks");
  for (const auto& wrong : {twice, outside, negative, few}) {
    ExpectRefused(BlockRotation{wrong, Vector(4), 2, 6}, "permutation");
  }
}

TEST(CheckDeltaOpTest, PairRotationsHaveEvenGroups) {
  ExpectAccepted(PairRotation{Vector(12), Vector(12), 4});
  ExpectRefused(PairRotation{Vector(12), Vector(11), 4}, "pair rotation");
  ExpectRefused(PairRotation{Vector(12), Vector(12), 3}, "pair rotation");
  ExpectRefused(PairRotation{Vector(12), Vector(12), 8}, "pair rotation");
  ExpectRefused(PairRotation{Vector(12), Vector(12), 0}, "pair rotation");
  ExpectRefused(PairRotation{{}, {}, 2}, "pair rotation");
}

TEST(CheckDeltaOpTest, EmbeddingRowsHaveATokenEach) {
  const std::vector<int32_t> ids = {4, 9}, twice = {4, 4}, negative = {-4, 4};
  ExpectAccepted(EmbeddingRows{ids, Matrix(2, 3)});
  ExpectRefused(EmbeddingRows{ids, Matrix(3, 3)}, "one ascending token id per row");
  ExpectRefused(EmbeddingRows{twice, Matrix(2, 3)}, "one ascending token id per row");
  ExpectRefused(EmbeddingRows{negative, Matrix(2, 3)}, "one ascending token id per row");
  ExpectRefused(EmbeddingRows{{}, Matrix(0, 3)}, "matrix");
}

TEST(CheckDeltaOpTest, EmbeddingFactorsChain) {
  ExpectAccepted(EmbeddingLowRank{Matrix(4, 9), Matrix(6, 4), 1.0f, Vector(6)});
  ExpectRefused(EmbeddingLowRank{Matrix(4, 9), Matrix(6, 5)}, "A [rank, vocab], B [hidden, rank]");
  ExpectRefused(EmbeddingLowRank{Matrix(4, 9), Matrix(6, 4), 1.0f, Vector(4)}, "scale per column");
  ExpectRefused(EmbeddingLowRank{Matrix(4, 0), Matrix(6, 4)}, "matrix");
}

TEST(ShapeOfTest, IsWhatARowOfTheOpReadsAndChanges) {
  const auto expect = [](const DeltaOp& op, int64_t in, int64_t out) {
    EXPECT_EQ(ShapeOf(op).in, in) << NameOf(op);
    EXPECT_EQ(ShapeOf(op).out, out) << NameOf(op);
  };
  expect(LowRank{Matrix(4, 8), Matrix(6, 4)}, 8, 6);
  expect(Kronecker{Matrix(2, 3), Matrix(4, 5)}, 15, 8);
  expect(Bias{Vector(7)}, 0, 7);
  expect(OutputScale{Vector(7)}, 0, 7);
  expect(InputScale{Vector(7)}, 7, 7);
  expect(DenseRows{{}, Matrix(2, 3), 9}, 3, 9);
}

TEST(FlopsPerTokenTest, CountsMultiplyAddsTwice) {
  EXPECT_EQ(FlopsPerToken(LowRank{Matrix(4, 8), Matrix(6, 4)}), 2 * 4 * (8 + 6));
  EXPECT_EQ(FlopsPerToken(Dense{Matrix(4, 8)}), 2 * 4 * 8);
  const std::vector<int32_t> begin = {0, 2, 3}, columns = {0, 4, 1};
  EXPECT_EQ(FlopsPerToken(Sparse{begin, columns, Vector(3), 5}), 2 * 3);
}

}  // namespace
}  // namespace polyad
