// Steps that are recorded and run as graphs give the bits of those that are queued call by call, on
// a device that does everything as late as it may and keeps its memory out of the host's reach; and
// faults planted into the host's code, one at a time, are found so.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/simt/mutation.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/cuda/fake_matmuls.h"
#include "tests/kernels/cuda/mutants_in_sources.h"
#include "tests/kernels/op_inputs.h"
#include "tests/kernels/stored_weight.h"

namespace polyad::test {
namespace {

using cuda::StepGraphs;

constexpr int64_t kWidth = 64;
constexpr int64_t kVocabulary = 40;
constexpr int64_t kRank = 70;  // of an adapter whose factors are longer than a lane
constexpr int64_t kMostRows = 4;

constexpr int64_t kTokens = 2;  // of a block that have keys and values

enum class Transfers : uint8_t { kLate, kEarly };
struct Setting {
  int64_t graph_rows = 0;
  Transfers transfers = Transfers::kLate;
};

std::vector<float> Values(FloatRows rows) {
  std::vector<float> values;
  for (int64_t row = 0; row < rows.rows; ++row) {
    values.insert(values.end(), rows.Row(row), rows.Row(row) + rows.cols);
  }
  return values;
}

// A base of one layer, on a guarded emulated device.
class OneLayer {
 public:
  explicit OneLayer(const Setting& setting)
      : backend_(ComputeMode::kF32, {}, /*guarded=*/true, nullptr, setting.graph_rows) {
    if (setting.transfers == Transfers::kEarly) backend_.emulated().TransferEarly();
    const StoredWeight table = MakeWeight(DType::kBF16, kVocabulary, kWidth, 1);
    const StoredWeight weight = MakeWeight(DType::kBF16, kWidth, kWidth, 2);
    const TensorView views[] = {table.view(), weight.view()};
    table_ = *backend_.PackMatrix(std::span(views, 1));
    weight_ = *backend_.PackMatrix(std::span(views + 1, 1));
    norm_ = RandomValues(kWidth, 3);
    for (FloatRows* rows : {&stream_, &other_stream_, &normed_, &attended_, &qkv_}) {
      const int64_t cols = rows == &qkv_ ? 3 * 4 * kWidth : 4 * kWidth;
      memory_.push_back(*backend_.Allocate(kMostRows * cols * 4));
      *rows = {static_cast<float*>(memory_.back().get()), kMostRows, cols, cols};
    }
    KvShape shape;
    shape.num_layers = 2;
    shape.num_kv_heads = 4;
    shape.head_dim = kWidth;  // a block of both layers is four lanes long
    kv_ = *backend_.AllocateKv(shape, 4);
  }

  // An adapter that is packed for the step, and dropped before anybody waits for it, or kept.
  std::vector<float> Step(const std::vector<int32_t>& ids, uint32_t seed) {
    const auto rows = static_cast<int64_t>(ids.size());
    const FloatRows stream = (seed % 2 == 0 ? stream_ : other_stream_).Slice(0, rows);
    backend_.Embed(*table_, ids, stream.Columns(0, kWidth));
    Calls(stream.Columns(0, kWidth), seed);
    backend_.Finish();
    return Values(stream.Columns(0, kWidth));
  }

  // Keys and values stored in a step's launches, saved after them, brought back elsewhere while
  // launches that stored something else there are on their way, and attended to.
  std::vector<float> Swap(uint32_t seed) {
    const std::vector<int32_t> ids = {1, 2};
    backend_.Embed(*table_, ids, stream_.Slice(0, 2).Columns(0, kWidth));
    Store(1, seed);
    std::vector<char> saved(static_cast<size_t>(kv_->block_bytes()), 0);
    kv_->Save(1, saved);
    backend_.Embed(*table_, ids, stream_.Slice(0, 2).Columns(0, kWidth));
    Store(2, seed + 100);
    kv_->Restore(2, saved);
    std::fill(saved.begin(), saved.end(), 1);  // it was read
    std::vector<float> values = Attend(2);
    kv_->Save(2, saved);
    for (size_t i = 0; i < saved.size(); i += 4) {
      float value = 0;
      std::memcpy(&value, saved.data() + i, 4);
      values.push_back(value);
    }
    return values;
  }

  TokenScore Best() {
    TokenScore best;
    backend_.ArgMax(stream_.Slice(0, 1).Columns(0, kWidth), std::span(&best, 1));
    return best;
  }
  EmulatedBackend& backend() { return backend_; }

 private:
  void Calls(FloatRows stream, uint32_t seed) {
    const ActivationRows normed = {normed_.data, DType::kF32, stream.rows, kWidth, normed_.stride};
    backend_.Norm({NormKind::kRms, 1e-5f, norm_.data(), nullptr}, stream, normed);
    const StoredWeight a = MakeWeight(DType::kBF16, kRank, kWidth, 4 + seed);
    const StoredWeight b = MakeWeight(DType::kBF16, kWidth, kRank, 5 + seed);
    PackShare share;
    std::unique_ptr<PackedDelta> op = *backend_.PackDelta(LowRank{a.view(), b.view(), 1.0f}, share);
    const DeltaSegment segments[] = {{0, stream.rows, 0, op.get()}};
    GemmArgs gemm;
    gemm.weight = weight_.get();
    gemm.accumulate = true;
    gemm.deltas = segments;
    backend_.Gemm(gemm, normed, stream);
    backend_.Accumulate(stream, stream);
    if (seed % 2 == 1) kept_ = std::move(op);
  }

  // [k | v] of a block's first tokens, in both layers.
  void Store(int64_t block, uint32_t seed) {
    for (int64_t layer = 0; layer < 2; ++layer) {
      backend_.Finish();
      const FloatRows rows = qkv_.Slice(0, kTokens).Columns(0, 2 * 4 * kWidth);
      for (int64_t row = 0; row < rows.rows; ++row) {
        const std::vector<float> values =
            RandomValues(rows.cols, seed + static_cast<uint32_t>(kTokens * layer + row));
        std::copy(values.begin(), values.end(), rows.Row(row));
      }
      // The rows are the host's until here: what follows is recorded with this step again.
      const std::vector<int32_t> ids = {3};
      backend_.Embed(*table_, ids, other_stream_.Slice(0, 1).Columns(0, kWidth));
      std::vector<int64_t> slots;
      for (int64_t i = 0; i < kTokens; ++i) slots.push_back(block * kBlockTokens + i);
      const std::vector<int32_t> positions(kTokens, 0);
      QkvArgs store;
      store.qkv = rows;
      store.positions = positions;
      store.slots = slots;
      store.kv = kv_.get();
      store.layer = layer;
      backend_.RotateAndStore(store);
    }
  }

  std::vector<float> Attend(int32_t block) {
    const std::vector<int32_t> blocks = {block};
    AttentionSequence sequence;
    sequence.row_end = 1;
    sequence.context_end = kTokens;
    sequence.blocks = blocks;
    AttentionArgs args;
    args.qkv = qkv_.Slice(0, 1);
    args.out = {attended_.data, DType::kF32, 1, 4 * kWidth, attended_.stride};
    args.num_heads = 4;
    args.scale = 0.1f;
    args.sequences = std::span(&sequence, 1);
    args.kv = kv_.get();
    args.layer = 1;
    backend_.Attention(args);
    backend_.Finish();
    return Values(attended_.Slice(0, 1));
  }

  EmulatedBackend backend_;
  std::vector<std::shared_ptr<void>> memory_;
  std::unique_ptr<PackedMatrix> table_;
  std::unique_ptr<PackedMatrix> weight_;
  std::unique_ptr<KvStorage> kv_;
  std::unique_ptr<PackedDelta> kept_;
  std::vector<float> norm_;
  FloatRows stream_;
  FloatRows other_stream_;
  FloatRows normed_;
  FloatRows attended_;
  FloatRows qkv_;
};

// Steps whose base product a library queues, between launches of ours.
std::vector<float> StepsWithLibrary(const Setting& setting, StepGraphs::Counts* counts = nullptr) {
  FakeMatmuls* library = nullptr;
  EmulatedBackend backend(ComputeMode::kBF16, {}, /*guarded=*/true,
                          FakeProducts({FakeWay()}, /*most_rows=*/2, library), setting.graph_rows);
  if (setting.transfers == Transfers::kEarly) backend.emulated().TransferEarly();
  const StoredWeight table = MakeWeight(DType::kBF16, kVocabulary, kWidth, 1);
  const StoredWeight weight = MakeWeight(DType::kBF16, kWidth, kWidth, 2);
  const TensorView views[] = {table.view(), weight.view()};
  const auto packed_table = *backend.PackMatrix(std::span(views, 1));
  const auto packed_weight = *backend.PackMatrix(std::span(views + 1, 1));
  const auto stream_memory = *backend.Allocate(2 * kWidth * 4);
  const auto normed_memory = *backend.Allocate(2 * kWidth * 2);
  const FloatRows stream{static_cast<float*>(stream_memory.get()), 2, kWidth, kWidth};
  const ActivationRows normed{normed_memory.get(), DType::kBF16, 2, kWidth, kWidth};
  const std::vector<float> norm = RandomValues(kWidth, 3);
  GemmArgs gemm;
  gemm.weight = packed_weight.get();
  gemm.accumulate = true;
  std::vector<float> values;
  for (int32_t i = 0; i < 4; ++i) {
    const std::vector<int32_t> ids = {i, 39 - i};
    const int64_t calls = library->calls()[0];
    backend.Embed(*packed_table, ids, stream);
    backend.Norm({NormKind::kRms, 1e-5f, norm.data(), nullptr}, stream, normed);
    backend.Gemm(gemm, normed, stream);
    backend.Accumulate(stream, stream);
    backend.Finish();
    EXPECT_EQ(library->calls()[0], calls + 1);
    const std::vector<float> step = Values(stream);
    values.insert(values.end(), step.begin(), step.end());
  }
  EXPECT_EQ(backend.fault(), "");
  if (counts != nullptr) *counts = backend.graph_counts();
  return values;
}

// Bits of everything: steps of the same rows again and again, with other ids, and one of others.
std::vector<uint32_t> BitsOf(const Setting& setting, StepGraphs::Counts* counts = nullptr) {
  OneLayer layer(setting);
  std::vector<float> values;
  const auto add = [&](const std::vector<float>& more) {
    values.insert(values.end(), more.begin(), more.end());
  };
  for (uint32_t i = 0; i < 5; ++i) {
    const auto id = static_cast<int32_t>(i);
    add(layer.Step({id, 39 - id}, i));
    if (i == 2) add(layer.Step({id, id, 0, 1}, i));
    if (i % 2 == 1) values.push_back(layer.Best().logit);
  }
  add(layer.Swap(1000));
  add(StepsWithLibrary(setting));
  EXPECT_EQ(layer.backend().fault(), "");
  if (counts != nullptr) *counts = layer.backend().graph_counts();
  std::vector<uint32_t> bits(values.size());
  std::memcpy(bits.data(), values.data(), values.size() * sizeof(float));
  return bits;
}

const std::vector<uint32_t>& Expected() {
  static const auto& expected = *new std::vector<uint32_t>(BitsOf({.graph_rows = 0}));
  return expected;
}

TEST(RecordedStepsTest, HaveTheBitsOfThoseThatAreNotRecorded) {
  EXPECT_EQ(BitsOf({0, Transfers::kEarly}), Expected());
  StepGraphs::Counts counts;
  for (const Transfers transfers : {Transfers::kLate, Transfers::kEarly}) {
    EXPECT_EQ(BitsOf({kMostRows, transfers}, &counts), Expected());
    EXPECT_GE(counts.made, 2);
    EXPECT_GE(counts.changed, 3);
    EXPECT_GT(counts.launched, counts.made);
    EXPECT_GE(counts.plain, 2);
    EXPECT_EQ(counts.refused, 0);
  }
  EXPECT_EQ(BitsOf({2}, &counts), Expected()) << "some recorded, some not";
  EXPECT_GE(counts.made, 1);
}

// The first step brings the norm's weights; the next one is new; those after it are graphs up to
// the product.
TEST(RecordedStepsTest, ALibrarysProductEndsTheRecording) {
  StepGraphs::Counts counts;
  const std::vector<float> queued = StepsWithLibrary({0}, &counts);
  EXPECT_EQ(counts.launched + counts.plain, 0);
  EXPECT_EQ(StepsWithLibrary({kMostRows}, &counts), queued);
  EXPECT_EQ(counts.made, 1);
  EXPECT_EQ(counts.launched, 2);
  EXPECT_EQ(counts.plain, 2);
}

TEST(RecordedStepsTest, AStepWhoseGraphIsRefusedIsNotLost) {
  OneLayer plain({0});
  const std::vector<float> expected[] = {plain.Step({3}, 0), plain.Step({3}, 1)};
  OneLayer layer({kMostRows});
  layer.backend().emulated().Refuse(1, 1);
  for (uint32_t i = 0; i < 18; ++i) {
    EXPECT_EQ(layer.Step({3}, i % 2), expected[i % 2]) << i;
  }
  EXPECT_EQ(layer.backend().graph_counts().refused, 2);
  EXPECT_GE(layer.backend().graph_counts().made, 2);
}

TEST(RecordedStepsTest, EqualStepsChangeNothingOfTheirGraph) {
  EmulatedBackend backend(ComputeMode::kF32, {}, /*guarded=*/true, nullptr, kMostRows);
  const StoredWeight table = MakeWeight(DType::kBF16, kVocabulary, kWidth, 1);
  const TensorView view = table.view();
  const auto packed = *backend.PackMatrix(std::span(&view, 1));
  const auto memory = *backend.Allocate(kWidth * 4);
  const FloatRows rows{static_cast<float*>(memory.get()), 1, kWidth, kWidth};
  for (int32_t id = 0; id < 6; ++id) {
    backend.Embed(*packed, std::span(&id, 1), rows);
    backend.Accumulate(rows, rows);
    backend.Finish();
    for (int64_t i = 0; i < kWidth; ++i) {
      ASSERT_EQ(rows.data[i], 2 * table.values[static_cast<size_t>(id * kWidth + i)]);
    }
  }
  EXPECT_EQ(backend.graph_counts().made, 1);
  EXPECT_EQ(backend.graph_counts().launched, 5);
  EXPECT_EQ(backend.graph_counts().changed, 0) << "ids are not arguments";
}

TEST(RecordedStepsDeathTest, TheHostCannotReadWhatIsOnlyRecorded) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EmulatedBackend backend(ComputeMode::kF32, {}, /*guarded=*/true, nullptr, kMostRows);
  const StoredWeight table = MakeWeight(DType::kBF16, kVocabulary, kWidth, 1);
  const TensorView view = table.view();
  const auto packed = *backend.PackMatrix(std::span(&view, 1));
  const auto memory = *backend.Allocate(kWidth * 4);
  auto* numbers = static_cast<float*>(memory.get());
  const int32_t id = 3;
  backend.Embed(*packed, std::span(&id, 1), {numbers, 1, kWidth, kWidth});
  EXPECT_DEATH({ numbers[0] = 3.0f; }, "");
  backend.Finish();
  EXPECT_EQ(numbers[0], table.values[3 * kWidth]);
}

constexpr std::string_view kMutants[] = {
    "queue.frees_at_once",
    "queue.brings_nothing",
    "queue.graph_is_stale",
    "queue.uses_what_is_on_its_way",
    "queue.fills_a_lane_too_early",
    "queue.empties_a_lane_too_early",
    "queue.saves_before_what_is_recorded",
    "queue.saves_too_early",
    "queue.restores_before_what_is_recorded",
    "queue.restores_too_early",
    "queue.restores_too_late",
    "queue.multiplies_before_what_is_recorded",
};

// In a process of its own: kernels that are given nothing, or another step's plan, may end it.
bool IsFound(std::string_view mutant, const std::vector<uint32_t>& expected) {
  const pid_t child = ::fork();
  if (child == 0) {
    simt::planted_mutant = simt::MutantId(mutant);
    const bool same = BitsOf({kMostRows, Transfers::kLate}) == expected &&
                      BitsOf({kMostRows, Transfers::kEarly}) == expected;
    std::_Exit(same ? 0 : 1);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status != 0;
}

TEST(RecordedStepsTest, EachFaultIsFound) {
  const std::vector<uint32_t>& expected = Expected();
  EXPECT_FALSE(IsFound("none", expected));
  for (const std::string_view mutant : kMutants) {
    EXPECT_TRUE(IsFound(mutant, expected)) << mutant << " survives";
  }
}

TEST(RecordedStepsTest, TheTableNamesEveryFaultOfTheHostsCode) {
  const std::set<std::string> named(std::begin(kMutants), std::end(kMutants));
  std::set<std::string> planted = MutantsInSources();
  std::erase_if(planted, [](const std::string& name) { return !name.starts_with(kQueueMutant); });
  EXPECT_EQ(named, planted);
}

}  // namespace
}  // namespace polyad::test
