// The oracle against numbers worked by hand: each op on inputs small enough to check on paper.
// covers: kernels/reference/activation.cc
// covers: kernels/reference/argmax.cc
// covers: kernels/reference/attention.cc
// covers: kernels/reference/gemm.cc
// covers: kernels/reference/low_rank.cc
// covers: kernels/reference/norm.cc
// covers: kernels/reference/rotate_and_store.cc
// covers: kernels/reference/rows.cc
// covers: kernels/reference/reference_backend.cc

#include "kernels/reference/reference_backend.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace polyad::ref {
namespace {

using testing::ElementsAre;
using testing::FloatEq;
using testing::FloatNear;

FloatRows Rows(std::vector<float>& values, int64_t rows) {
  const int64_t cols = static_cast<int64_t>(values.size()) / rows;
  return {values.data(), rows, cols, cols};
}

ActivationRows Activations(std::vector<float>& values, int64_t rows) {
  const int64_t cols = static_cast<int64_t>(values.size()) / rows;
  return {values.data(), DType::kF32, rows, cols, cols};
}

class ReferenceBackendTest : public testing::Test {
 protected:
  ReferenceBackend backend_{ComputeMode::kF32};
};

TEST_F(ReferenceBackendTest, RmsNormDividesByTheRootMeanSquare) {
  std::vector<float> x = {3, -4, 0, 5};  // mean square 12.5
  std::vector<float> y(4);
  const std::vector<float> weight = {1, 2, 1, -1};
  NormArgs args;
  args.eps = 0;
  args.weight = weight.data();
  backend_.Norm(args, Rows(x, 1), Activations(y, 1));
  const float root = std::sqrt(12.5f);
  EXPECT_THAT(y,
              ElementsAre(FloatEq(3 / root), FloatEq(-8 / root), FloatEq(0), FloatEq(-5 / root)));
}

TEST_F(ReferenceBackendTest, LayerNormCentresAndAddsTheBias) {
  std::vector<float> x = {1, 3, 1, 3};  // mean 2, variance 1; eps 3 makes the divisor 2
  std::vector<float> y(4);
  const std::vector<float> weight = {1, 1, 4, 4};
  const std::vector<float> bias = {0, 1, 0, 1};
  const NormArgs args{NormKind::kLayer, 3.0f, weight.data(), bias.data()};
  backend_.Norm(args, Rows(x, 1), Activations(y, 1));
  EXPECT_THAT(y, ElementsAre(-0.5f, 1.5f, -2.0f, 3.0f));
}

TEST_F(ReferenceBackendTest, GemmStacksPartsAndAddsBiasAndResidual) {
  const std::vector<float> top = {1, 2};
  const std::vector<float> bottom = {3, 4, 5, 6};
  const TensorView parts[] = {{top.data(), DType::kF32, 1, 2}, {bottom.data(), DType::kF32, 2, 2}};
  const auto weight = *backend_.PackMatrix(parts);
  std::vector<float> x = {1, 10};
  std::vector<float> y = {100, 200, 300};
  const std::vector<float> bias = {0, 0, 1};
  backend_.Gemm({weight.get(), nullptr, false, {}}, Activations(x, 1), Rows(y, 1));
  EXPECT_THAT(y, ElementsAre(21, 43, 65));
  backend_.Gemm({weight.get(), bias.data(), true, {}}, Activations(x, 1), Rows(y, 1));
  EXPECT_THAT(y, ElementsAre(42, 86, 131));
}

TEST_F(ReferenceBackendTest, PackingRefusesPartsThatDiffer) {
  const std::vector<float> data(4);
  const TensorView parts[] = {{data.data(), DType::kF32, 1, 2}, {data.data(), DType::kF32, 1, 4}};
  EXPECT_EQ(backend_.PackMatrix(parts).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ReferenceBackendTest, LowRankAddsToItsRowsAndColumnsOnly) {
  const std::vector<float> a = {1, 1};  // rank 1, in 2
  const std::vector<float> b = {1, 2};  // out 2, rank 1
  PackShare share;
  const auto op = *backend_.PackDelta(
      LowRank{{a.data(), DType::kF32, 1, 2}, {b.data(), DType::kF32, 2, 1}, 0.5f}, share);
  std::vector<float> x = {1, 1, 3, 5};
  std::vector<float> y = {0, 0, 0, 7, 7, 7};
  const DeltaSegment segment{1, 2, 1, op.get()};
  backend_.Apply(std::span(&segment, 1), Activations(x, 2), Rows(y, 2));
  EXPECT_THAT(y, ElementsAre(0, 0, 0, 7, 11, 15));
  EXPECT_EQ(op->cost().flops_per_token, 8);
}

TEST_F(ReferenceBackendTest, ActivationsTakeTheirTextbookValues) {
  std::vector<float> x = {1, -1};
  std::vector<float> y(2);
  backend_.Activate(ActivationKind::kSilu, false, Rows(x, 1), Activations(y, 1));
  EXPECT_THAT(y, ElementsAre(FloatNear(0.731058579f, 1e-7f), FloatNear(-0.268941421f, 1e-7f)));
  backend_.Activate(ActivationKind::kGeluTanh, false, Rows(x, 1), Activations(y, 1));
  EXPECT_THAT(y, ElementsAre(FloatNear(0.841191991f, 1e-7f), FloatNear(-0.158808009f, 1e-7f)));
  backend_.Activate(ActivationKind::kGeluErf, false, Rows(x, 1), Activations(y, 1));
  EXPECT_THAT(y, ElementsAre(FloatNear(0.841344746f, 1e-7f), FloatNear(-0.158655254f, 1e-7f)));
  backend_.Activate(ActivationKind::kRelu, false, Rows(x, 1), Activations(y, 1));
  EXPECT_THAT(y, ElementsAre(1, 0));
}

TEST_F(ReferenceBackendTest, GatedActivationMultipliesByTheSecondHalf) {
  std::vector<float> x = {2, -1, 10, 20};
  std::vector<float> y(2);
  backend_.Activate(ActivationKind::kRelu, true, Rows(x, 1), Activations(y, 1));
  EXPECT_THAT(y, ElementsAre(20, 0));
}

TEST_F(ReferenceBackendTest, EmbeddingRowsAreCopiedAddedAndGathered) {
  const std::vector<float> values = {1, 2, 3, 4};
  const TensorView view{values.data(), DType::kF32, 2, 2};
  const auto table = *backend_.PackMatrix(std::span(&view, 1));
  const std::vector<int32_t> ids = {1, 0, 1};
  std::vector<float> out(6, 9.0f);
  backend_.Embed(*table, ids, Rows(out, 3));
  EXPECT_THAT(out, ElementsAre(3, 4, 1, 2, 3, 4));
  backend_.AddRows(*table, ids, Rows(out, 3));
  EXPECT_THAT(out, ElementsAre(6, 8, 2, 4, 6, 8));
  std::vector<float> gathered(2);
  backend_.GatherRows(Rows(out, 3), std::vector<int32_t>{1}, Rows(gathered, 1));
  EXPECT_THAT(gathered, ElementsAre(2, 4));
}

TEST_F(ReferenceBackendTest, ArgMaxTakesTheLowestIdOfATie) {
  std::vector<float> logits = {1, 5, 5, 0, -3, -3, -4, -3};
  std::vector<TokenScore> best(2);
  backend_.ArgMax(Rows(logits, 2), best);
  EXPECT_EQ(best[0].token_id, 1);
  EXPECT_EQ(best[0].logit, 5);
  EXPECT_EQ(best[1].token_id, 0);
}

// One head of two dimensions, two tokens in block 1; a quarter turn per position.
TEST_F(ReferenceBackendTest, RotatesByPositionAndAttendsToWhatCameBefore) {
  const auto kv = *backend_.AllocateKv({1, 1, 2}, 2);
  const std::vector<float> cos = {1, 0};
  const std::vector<float> sin = {0, 1};
  std::vector<float> rows = {1, 0, /*k*/ 1, 0, /*v*/ 4, 8, 1, 0, /*k*/ 1, 0, /*v*/ 0, 0};
  const std::vector<int32_t> positions = {0, 1};
  const std::vector<int64_t> slots = {16, 17};
  QkvArgs store;
  store.qkv = Rows(rows, 2);
  store.num_heads = 1;
  store.rope = {cos.data(), sin.data(), 2};
  store.positions = positions;
  store.slots = slots;
  store.kv = kv.get();
  backend_.RotateAndStore(store);
  EXPECT_THAT(std::vector<float>(rows.begin() + 6, rows.begin() + 8), ElementsAre(0, 1));

  std::vector<float> out(4);
  const std::vector<int32_t> blocks = {1};
  const AttentionSequence sequence{0, 2, 2, blocks};
  AttentionArgs args;
  args.qkv = Rows(rows, 2);
  args.out = Activations(out, 2);
  args.num_heads = 1;
  args.scale = std::log(3.0f);  // weights of row 1: 1 for its own key, 1/3 for the other
  args.sequences = std::span(&sequence, 1);
  args.kv = kv.get();
  backend_.Attention(args);
  EXPECT_THAT(out, ElementsAre(4, 8, FloatNear(1, 1e-6f), FloatNear(2, 1e-6f)));
  args.sliding_window = 1;
  backend_.Attention(args);
  EXPECT_THAT(out, ElementsAre(4, 8, 0, 0));
}

TEST_F(ReferenceBackendTest, HeadNormsScaleQueriesToTheRootOfTheirWidth) {
  const auto kv = *backend_.AllocateKv({1, 1, 2}, 1);
  const std::vector<float> norm = {1, 2};
  std::vector<float> rows = {3, 4, 1, 1, 0, 0};  // q mean square 12.5
  const std::vector<int32_t> positions = {0};
  const std::vector<int64_t> slots = {-1};
  QkvArgs store;
  store.qkv = Rows(rows, 1);
  store.num_heads = 1;
  store.q_norm = norm.data();
  store.norm_eps = 0;
  store.positions = positions;
  store.slots = slots;
  store.kv = kv.get();
  backend_.RotateAndStore(store);
  const float root = std::sqrt(12.5f);
  EXPECT_THAT(std::vector<float>(rows.begin(), rows.begin() + 2),
              ElementsAre(FloatEq(3 / root), FloatEq(8 / root)));
}

TEST(ReferenceModeTest, AutoModeWritesBf16) {
  ReferenceBackend backend(ComputeMode::kAuto);
  std::vector<float> x = {1.00390625f, -1.01171875f};  // halfway: ties go to even
  std::vector<uint16_t> y(2);
  backend.Activate(ActivationKind::kRelu, false, Rows(x, 1), {y.data(), DType::kBF16, 1, 2, 2});
  EXPECT_EQ(y[0], 0x3f80);
  EXPECT_EQ(y[1], 0);
}

}  // namespace
}  // namespace polyad::ref
