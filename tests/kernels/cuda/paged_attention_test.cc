// RoPE, K/V pages and paged attention under the emulator: what pages hold, shapes beyond the shared
// op cases (any number of heads to a kv head, head dims up to 256), and the promise that a row's
// bits depend on the row alone.

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/kv_pool.h"
#include "kernels/reference/reference_backend.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/op_cases.h"
#include "tests/kernels/op_inputs.h"
#include "tests/kernels/simt/schedules.h"

namespace polyad::test {
namespace {

void ExpectConformance(const OpCase& op, ComputeMode mode, const simt::EmulatorOptions& options) {
  EmulatedBackend backend(mode, options);
  ref::ReferenceBackend reference(mode);
  const std::unique_ptr<OpRun> got = op.make(backend);
  const std::unique_ptr<OpRun> want = op.make(reference);
  got->Run();
  want->Run();
  ASSERT_EQ(backend.fault(), "") << op.name;
  const std::vector<double> actual = got->Output();
  const std::vector<double> expected = want->Output();
  const std::vector<double> tolerance = want->Tolerance();
  ASSERT_EQ(actual.size(), expected.size());
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_LE(std::abs(actual[i] - expected[i]), tolerance[i]) << op.name << " element " << i;
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  EXPECT_LE(std::sqrt(error / norm), want->NormTolerance()) << op.name;
}

std::vector<AttentionShape> Shapes() {
  std::vector<AttentionShape> shapes;
  for (const int64_t group : {1, 3, 16, 17}) {
    shapes.push_back({.num_heads = group,
                      .num_kv_heads = 1,
                      .head_dim = 32,
                      .contexts = {{37, 1}, {23, 6}},
                      .rotary_dim = 32,
                      .num_layers = 1});
  }
  for (const int64_t dim : {96, 128, 160, 256}) {
    shapes.push_back({.num_heads = 2,
                      .num_kv_heads = 1,
                      .head_dim = dim,
                      .contexts = {{35, 1}, {50, 20}},
                      .rotary_dim = dim,
                      .num_layers = 1});
  }
  // Prefill over several spans, decoding over several, a window that hides the first of them.
  shapes.push_back({.num_heads = 2,
                    .num_kv_heads = 2,
                    .head_dim = 16,
                    .contexts = {{530, 20}, {520, 1}},
                    .num_layers = 1});
  shapes.push_back({.num_heads = 1,
                    .num_kv_heads = 1,
                    .head_dim = 16,
                    .contexts = {{530, 1}, {530, 20}},
                    .window = 270,
                    .num_layers = 1});
  return shapes;
}

TEST(PagedAttentionTest, AttendsRightlyInEveryShape) {
  for (const ComputeMode mode : {ComputeMode::kAuto, ComputeMode::kF32}) {
    for (const AttentionShape& shape : Shapes()) {
      ExpectConformance(AttentionCase(shape), mode, {.order = simt::Order::kRandom});
    }
  }
}

// Each width of tiles that codes have, several heads to a kv head, several spans.
TEST(PagedAttentionTest, AttendsRightlyToCodes) {
  for (const KvFormat format : {KvFormat::kInt8, KvFormat::kInt4}) {
    for (AttentionShape shape : Shapes()) {
      const bool is_wide = shape.head_dim == 96 || shape.head_dim == 256;
      if (!is_wide && shape.num_heads != 17 && shape.window == 0) continue;
      shape.format = format;
      ExpectConformance(AttentionCase(shape), ComputeMode::kAuto, {.order = simt::Order::kRandom});
    }
  }
}

// Of codes they are in kernel_conformance_test.
TEST(PagedAttentionTest, AttendsRightlyInTheSharedCases) {
  int num_cases = 0;
  for (const OpCase& op : ConformanceCases()) {
    if (!op.name.starts_with("attention") || !op.name.ends_with("kv:auto")) continue;
    ++num_cases;
    for (const ComputeMode mode : {ComputeMode::kAuto, ComputeMode::kF32}) {
      ExpectConformance(op, mode, {.order = simt::Order::kReverse, .os_threads = 2});
    }
  }
  EXPECT_GE(num_cases, 11);
}

TEST(PagedAttentionTest, AttendsRightlyUnderEverySchedule) {
  const AttentionShape shape{.num_heads = 4,
                             .num_kv_heads = 2,
                             .head_dim = 24,
                             .contexts = {{70, 40}, {50, 1}},
                             .window = 33,
                             .first_key = 2,
                             .num_gates = 18,
                             .num_layers = 1};
  for (const simt::EmulatorOptions& options : simt::Schedules()) {
    for (const ComputeMode mode : {ComputeMode::kAuto, ComputeMode::kF32}) {
      ExpectConformance(AttentionCase(shape), mode, options);
    }
    AttentionShape coded = shape;
    coded.format = KvFormat::kInt4;
    ExpectConformance(AttentionCase(coded), ComputeMode::kAuto, options);
  }
}

TEST(PagedAttentionTest, RotatesRightlyUnderEverySchedule) {
  for (const simt::EmulatorOptions& options : simt::Schedules()) {
    for (AttentionShape shape : {Shapes()[1], Shapes()[4]}) {
      ExpectConformance(RotateCase(shape), ComputeMode::kAuto, options);
      shape.rotary_dim = 10;
      shape.head_norms = true;
      ExpectConformance(RotateCase(shape), ComputeMode::kF32, options);
    }
  }
}

// More keys than a warp has lanes; a head of 256 numbers.
TEST(GatedPrefixTest, AddsAnyNumberOfKeys) {
  const AttentionShape shape{.num_heads = 6, .num_kv_heads = 2, .head_dim = 256, .contexts = {}};
  for (const ComputeMode mode : {ComputeMode::kAuto, ComputeMode::kF32}) {
    ExpectConformance(GatedPrefixCase(shape, 2, 70), mode, {});
  }
}

// One sequence of 530 tokens, [q | k | v] rows of 6 heads over 2 of 40 numbers, stored.
class InvarianceRun {
 public:
  static constexpr int64_t kTokens = 530;
  static constexpr int64_t kHeads = 6;
  static constexpr int64_t kKvHeads = 2;
  static constexpr int64_t kDim = 40;
  static constexpr int64_t kCols = (kHeads + 2 * kKvHeads) * kDim;

  explicit InvarianceRun(ComputeMode mode)
      : backend_(mode, {}), qkv_(kTokens, kCols, RandomValues(kTokens * kCols, 3)) {
    kv_ = *backend_.AllocateKv({1, kKvHeads, kDim, KvFormat::kAuto}, 2 * kBlocks);
    for (int64_t b = 0; b < kBlocks; ++b) {
      blocks_.push_back(static_cast<int32_t>(2 * kBlocks - 1 - 2 * b));
      copies_.push_back(static_cast<int32_t>(2 * b));
    }
    Store(blocks_);
    Store(copies_);
  }

  void set_window(int64_t window) { window_ = window; }

  // The outputs of the last of tokens [begin, end), which are a sequence of a call beside others.
  std::vector<double> LastOf(int64_t begin, int64_t end, bool others) {
    const int64_t rows = others ? end - begin + 41 : end - begin;
    FloatBuffer step(rows, kCols);
    std::copy_n(qkv_.view().Row(begin), (end - begin) * kCols, step.view().data);
    std::vector<AttentionSequence> sequences{{0, end - begin, end, blocks_}};
    if (others) {
      std::copy_n(qkv_.view().Row(100), 41 * kCols, step.view().Row(end - begin));
      sequences.push_back({end - begin, end - begin + 40, 140, copies_});
      sequences.push_back({end - begin + 40, end - begin + 41, 310, copies_});
    }
    ActivationBuffer out(backend_, rows, kHeads * kDim);
    AttentionArgs args;
    args.qkv = step.view();
    args.out = out.rows();
    args.num_heads = kHeads;
    args.scale = 0.15f;
    args.sliding_window = window_;
    args.sequences = sequences;
    args.kv = kv_.get();
    backend_.Attention(args);
    EXPECT_EQ(backend_.fault(), "");
    const std::vector<double> values = out.Values();
    const auto last = values.begin() + (end - begin - 1) * kHeads * kDim;
    return {last, last + kHeads * kDim};
  }

 private:
  static constexpr int64_t kBlocks = (kTokens + kBlockTokens - 1) / kBlockTokens;

  void Store(const std::vector<int32_t>& blocks) {
    std::vector<int32_t> positions(kTokens);
    std::iota(positions.begin(), positions.end(), 0);
    std::vector<int64_t> slots;
    for (int64_t p = 0; p < kTokens; ++p) {
      slots.push_back(blocks[static_cast<size_t>(p / kBlockTokens)] * kBlockTokens +
                      p % kBlockTokens);
    }
    QkvArgs args;
    args.qkv = qkv_.view();
    args.num_heads = kHeads;
    args.positions = positions;
    args.slots = slots;
    args.kv = kv_.get();
    backend_.RotateAndStore(args);
  }

  EmulatedBackend backend_;
  int64_t window_ = 0;
  FloatBuffer qkv_;
  std::unique_ptr<KvStorage> kv_;
  std::vector<int32_t> blocks_;
  std::vector<int32_t> copies_;
};

TEST(PagedAttentionTest, ARowsBitsDependOnTheRowAlone) {
  for (const ComputeMode mode : {ComputeMode::kAuto, ComputeMode::kF32}) {
    InvarianceRun run(mode);
    for (const auto& [end, window] : {std::pair<int64_t, int64_t>{17, 0}, {530, 0}, {530, 330}}) {
      run.set_window(window);
      const std::vector<double> alone = run.LastOf(end - 1, end, false);
      EXPECT_EQ(run.LastOf(end - 1, end, true), alone) << "beside others";
      EXPECT_EQ(run.LastOf(end - 3, end, false), alone) << "in a short chunk";
      EXPECT_EQ(run.LastOf(end - 17, end, true), alone) << "in a chunk of some tiles";
      EXPECT_EQ(run.LastOf(std::max<int64_t>(0, end - 60), end, false), alone) << "in a long one";
    }
  }
}

// A key (part 0) or value of a page, to the end of its stride.
template <typename T>
std::vector<float> StoredRow(const cuda::KvPages<T>& pages, int64_t slot, int64_t head, int part) {
  const T* from = pages.data + PageRow(pages, slot / kBlockTokens, static_cast<int>(head), part,
                                       slot % kBlockTokens);
  std::vector<float> row;
  for (int i = 0; i < pages.stride; ++i) row.push_back(simt::ToFloat(from[i]));
  return row;
}

TEST(PagedAttentionTest, PagesHoldWhatWasStored) {
  for (const ComputeMode mode : {ComputeMode::kAuto, ComputeMode::kF32}) {
    EmulatedBackend backend(mode, {});
    constexpr int64_t kDim = 20;
    const std::unique_ptr<KvStorage> kv = *backend.AllocateKv({2, 3, kDim, KvFormat::kAuto}, 2);
    FloatBuffer rows(2, 6 * kDim, RandomValues(2 * 6 * kDim, 1));
    const int32_t positions[] = {0, 0};
    const int64_t slots[] = {21, -1};
    QkvArgs args;
    args.qkv = rows.view();
    args.positions = positions;
    args.slots = slots;
    args.kv = kv.get();
    args.layer = 1;
    backend.RotateAndStore(args);
    ASSERT_EQ(backend.fault(), "");
    const auto row_of = [&](int64_t layer, int64_t slot, int64_t head, int part) {
      const auto& own = static_cast<const cuda::CudaKv&>(*kv);
      return mode == ComputeMode::kF32 ? StoredRow(own.Pages<float>(layer), slot, head, part)
                                       : StoredRow(own.Pages<simt::Bf16>(layer), slot, head, part);
    };
    for (const int64_t head : {0, 1, 2}) {
      for (const int part : {0, 1}) {
        const float* from = rows.view().Row(0) + (part * 3 + head) * kDim;
        std::vector<float> expected(from, from + kDim);
        expected.resize(32);
        EXPECT_EQ(row_of(1, 21, head, part), expected);
        EXPECT_TRUE(std::isnan(row_of(1, 20, head, part)[0]));
        EXPECT_TRUE(std::isnan(row_of(0, 21, head, part)[0]));
      }
    }
  }
}

TEST(AttentionPlanTest, SplitsDecodingBySpansAndPrefillsByTiles) {
  cuda::DeviceSequence decoding;
  decoding.row_end = 1;
  decoding.context_end = 600;
  cuda::DeviceSequence prefill;
  prefill.row_begin = 1;
  prefill.row_end = 41;
  prefill.context_end = 300;
  const cuda::DeviceSequence sequences[] = {decoding, prefill};
  const cuda::AttentionPlan plan = cuda::PlanAttention(sequences, {4, 2, 0});
  EXPECT_EQ(plan.num_few, 2 * 3);
  ASSERT_EQ(plan.items.size(), 2u * 3 + 2 * 2);
  EXPECT_EQ(plan.items[1].key_begin, 256);
  EXPECT_EQ(plan.items[1].key_end, 512);
  EXPECT_EQ(plan.items[6].key_end, 260 + 32);
  EXPECT_EQ(plan.items[7].rows, 16);
  EXPECT_EQ(plan.num_partials, 4 * 3 + 40 * 4);
  ASSERT_EQ(plan.merges.size(), 41u);
  EXPECT_EQ(plan.merges[1].partial, 12);
  EXPECT_EQ(plan.merges[0].slots, 3);
}

TEST(AttentionPlanTest, LeavesOutSpansThatAWindowHides) {
  cuda::DeviceSequence sequence;
  sequence.row_end = 2;
  sequence.context_end = 1030;
  const cuda::AttentionPlan plan = cuda::PlanAttention({&sequence, 1}, {8, 1, 100});
  ASSERT_EQ(plan.items.size(), 2u);
  EXPECT_EQ(plan.items[0].key_begin, 929);
  EXPECT_EQ(plan.items[0].key_end, 1024);
  EXPECT_EQ(plan.items[1].key_end, 1030);
}

}  // namespace
}  // namespace polyad::test
