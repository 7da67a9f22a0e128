// Ranks of a group against one backend: the same bits, of every op case and of the calls that no
// case makes; and what is said where ranks cannot be had.

#include "kernels/shard/sharded_backend.h"

#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "kernels/shard/host_group.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/cuda/staged_backend.h"
#include "tests/kernels/op_cases.h"
#include "tests/kernels/op_inputs.h"
#include "tests/kernels/stored_weight.h"

namespace polyad::test {
namespace {

using ::testing::HasSubstr;

BackendOptions OptionsOf(ComputeMode mode, int num_ranks) {
  BackendOptions options;
  options.mode = mode;
  options.num_threads = num_ranks;
  options.num_ranks = num_ranks;
  return options;
}

std::unique_ptr<Backend> MakeCpu(ComputeMode mode, int num_ranks) {
  return *MakeBackend("cpu", OptionsOf(mode, num_ranks));
}

// Of a case on K/V pages, from its name ("heads:9x64over3"); others have any number.
int KvHeadsOf(const OpCase& op) {
  const size_t at = op.name.find("over");
  return at == std::string::npos ? kMaxRanks : std::stoi(op.name.substr(at + 4));
}

class ShardedBackendTest : public testing::TestWithParam<std::tuple<int, ComputeMode>> {
 protected:
  int num_ranks() const { return std::get<0>(GetParam()); }
  ComputeMode mode() const { return std::get<1>(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Ranks, ShardedBackendTest,
                         testing::Combine(testing::Values(2, 3),
                                          testing::Values(ComputeMode::kF32, ComputeMode::kAuto)));

TEST_P(ShardedBackendTest, EveryOpGivesTheBitsOfOneBackend) {
  const std::unique_ptr<Backend> one = MakeCpu(mode(), 1);
  const std::unique_ptr<Backend> ranks = MakeCpu(mode(), num_ranks());
  StagedBackend staged(*ranks);
  int num_split = 0;
  for (const OpCase& op : ConformanceCases()) {
    if (KvHeadsOf(op) < num_ranks()) continue;
    ++num_split;
    const std::unique_ptr<OpRun> expected = op.make(*one);
    const std::unique_ptr<OpRun> got = op.make(staged);
    expected->Run();
    for (int run = 0; run < 2; ++run) {  // nothing is left over between calls
      got->Run();
      ASSERT_EQ(got->Output(), expected->Output()) << op.name;
      expected->Run();
    }
  }
  EXPECT_GT(num_split, 100);
}

// Rows in memory of Allocate.
FloatRows RowsIn(const std::shared_ptr<void>& memory, int64_t rows, int64_t cols) {
  return {static_cast<float*>(memory.get()), rows, cols, cols};
}

std::vector<float> ValuesOf(FloatRows rows) {
  std::vector<float> values;
  for (int64_t row = 0; row < rows.rows; ++row) {
    values.insert(values.end(), rows.Row(row), rows.Row(row) + rows.cols);
  }
  return values;
}

// A fused layer with deltas: of each part alike, of a part of a part, of all parts, and vectors
// between them, on overlapping rows and columns.
struct FusedLayer {
  explicit FusedLayer(Backend& own) : backend(own) {
    for (const int64_t out : {192, 64, 65}) {
      weights.push_back(MakeWeight(DType::kBF16, out, kIn, static_cast<uint32_t>(out)));
    }
    std::vector<TensorView> views;
    for (const StoredWeight& weight : weights) views.push_back(weight.view());
    matrix = *backend.PackMatrix(views);
    AddLowRank(0, 192, 8);
    AddBias(0, 321);
    AddLowRank(192, 64, 3);
    AddLowRank(64, 100, 5);  // of no part
    AddLowRank(0, 321, 17);
    AddBias(100, 40);
    AddLowRank(256, 65, 1);
  }

  void AddLowRank(int64_t column, int64_t out, int64_t rank) {
    const auto seed = static_cast<uint32_t>(300 + 2 * deltas.size());
    const StoredWeight a = MakeWeight(DType::kBF16, rank, kIn, seed);
    const StoredWeight b = MakeWeight(DType::kBF16, out, rank, seed + 1);
    Add(column, LowRank{a.view(), b.view(), 0.5f, {}, {}});
  }
  void AddBias(int64_t column, int64_t out) { Add(column, Bias{RandomValues(out, 7)}); }
  void Add(int64_t column, const DeltaOp& op) {
    PackShare share;
    deltas.push_back(*backend.PackDelta(op, share));
    const auto shift = static_cast<int64_t>(deltas.size()) % 3;
    segments.push_back({shift, kRows - shift, column, deltas.back().get(), 0.75f});
  }

  std::vector<float> Run() {
    const std::shared_ptr<void> x_memory = *backend.Allocate(kRows * kIn * 4);
    const std::shared_ptr<void> from_memory = *backend.Allocate(kRows * kIn * 4);
    const std::shared_ptr<void> y_memory = *backend.Allocate(kRows * matrix->out() * 4);
    const FloatRows from = RowsIn(from_memory, kRows, kIn);
    const std::vector<float> values = RandomValues(kRows * kIn, 4);
    std::copy(values.begin(), values.end(), from.data);
    backend.HostWrote(from);
    const ActivationRows x{x_memory.get(), backend.activation_dtype(), kRows, kIn, kIn};
    backend.Convert(from, x);
    const FloatRows y = RowsIn(y_memory, kRows, matrix->out());
    const std::vector<float> bias = RandomValues(matrix->out(), 9);
    backend.Gemm({matrix.get(), bias.data(), false, segments}, x, y);
    backend.Apply(segments, x, y);
    // Only what every rank has is the same after every rank's own copy was read again.
    const std::shared_ptr<void> sum_memory = *backend.Allocate(kRows * matrix->out() * 4);
    const FloatRows sum = RowsIn(sum_memory, kRows, matrix->out());
    backend.Accumulate(y, sum);
    backend.Gemm({matrix.get(), nullptr, true, {}}, x, sum);
    backend.Finish();
    return ValuesOf(sum);
  }

  static constexpr int64_t kRows = 6;
  static constexpr int64_t kIn = 96;
  Backend& backend;
  std::vector<StoredWeight> weights;
  std::unique_ptr<PackedMatrix> matrix;
  std::vector<std::unique_ptr<PackedDelta>> deltas;
  std::vector<DeltaSegment> segments;
};

TEST_P(ShardedBackendTest, DeltasOfAnyColumnsOfAFusedLayerAreAddedInTheirOrder) {
  const std::unique_ptr<Backend> one = MakeCpu(mode(), 1);
  const std::unique_ptr<Backend> ranks = MakeCpu(mode(), num_ranks());
  EXPECT_EQ(FusedLayer(*ranks).Run(), FusedLayer(*one).Run());
}

TEST_P(ShardedBackendTest, RowsOfAProductAreWhoeverHasThem) {
  const std::unique_ptr<Backend> one = MakeCpu(mode(), 1);
  const std::unique_ptr<Backend> ranks = MakeCpu(mode(), num_ranks());
  const FusedLayer of_one(*one);
  const FusedLayer of_ranks(*ranks);
  const std::vector<float> x = RandomValues(2 * FusedLayer::kIn, 3);
  FloatBuffer input(2, FusedLayer::kIn, x);
  for (const auto& [first, count] :
       {std::pair<int64_t, int64_t>{0, 321}, {63, 2}, {191, 66}, {320, 1}}) {
    FloatBuffer expected(2, count);
    FloatBuffer got(2, count);
    one->ProductOfRows(*of_one.matrix, first, input.view(), expected.view());
    ranks->ProductOfRows(*of_ranks.matrix, first, input.view(), got.view());
    EXPECT_EQ(got.values, expected.values) << first;
  }
}

// More rows than one exchange carries.
TEST_P(ShardedBackendTest, LongRowsGoInPieces) {
  constexpr int64_t kRows = 9;
  constexpr int64_t kOut = RowExchange::kMaxRowFloats / 4;
  const StoredWeight table = MakeWeight(DType::kBF16, kOut, 2, 5);
  const TensorView view = table.view();
  std::vector<std::vector<float>> results;
  for (const int size : {1, num_ranks()}) {
    const std::unique_ptr<Backend> backend = MakeCpu(mode(), size);
    const std::unique_ptr<PackedMatrix> matrix = *backend->PackMatrix({&view, 1});
    const std::shared_ptr<void> y_memory = *backend->Allocate(kRows * kOut * 4);
    const FloatRows y = RowsIn(y_memory, kRows, kOut);
    ActivationBuffer x(*backend, kRows, 2, RandomValues(kRows * 2, 6));
    backend->Gemm({matrix.get(), nullptr, false, {}}, x.rows(), y);
    backend->Finish();
    results.push_back(ValuesOf(y));
  }
  EXPECT_EQ(results[0], results[1]);
}

TEST_P(ShardedBackendTest, ASavedBlockIsRestoredAtEveryRank) {
  const std::unique_ptr<Backend> ranks = MakeCpu(mode(), num_ranks());
  const KvShape shape{2, 3, 16};
  const std::unique_ptr<KvStorage> kv = *ranks->AllocateKv(shape, 4);
  const std::unique_ptr<Backend> one = MakeCpu(mode(), 1);
  const std::unique_ptr<KvStorage> whole = *one->AllocateKv(shape, 4);
  EXPECT_EQ(kv->block_bytes(), whole->block_bytes());
  EXPECT_EQ(kv->bytes(), whole->bytes());
  EXPECT_EQ(*ranks->KvBlockBytes(shape), *one->KvBlockBytes(shape));
  std::vector<char> content(static_cast<size_t>(kv->block_bytes()));
  std::iota(content.begin(), content.end(), 0);
  kv->Restore(1, content);
  std::vector<char> saved(content.size());
  kv->Save(1, saved);
  EXPECT_EQ(saved, content);
  kv->Save(2, saved);
  EXPECT_EQ(saved, std::vector<char>(content.size(), 0));
}

TEST(ShardedBackendErrorsTest, WhatCannotBeSplitIsSaid) {
  EXPECT_THAT(std::string(MakeBackend("cpu", OptionsOf(ComputeMode::kAuto, 0)).status().message()),
              HasSubstr("ranks: expected 1 to 64, got 0"));
  const std::unique_ptr<Backend> ranks = MakeCpu(ComputeMode::kAuto, 3);
  const absl::Status heads = ranks->KvBlockBytes({2, 2, 16}).status();
  EXPECT_EQ(heads.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(heads.message()), HasSubstr("split among 3 ranks: expected at least"));
  EXPECT_EQ(ranks->AllocateKv({2, 2, 16}, 4).status().code(), absl::StatusCode::kInvalidArgument);
  const std::vector<uint16_t> memory(4);
  const TensorView wide{memory.data(), DType::kBF16, 1, RowExchange::kMaxRowFloats};
  EXPECT_THAT(std::string(ranks->PackMatrix({&wide, 1}).status().message()),
              HasSubstr("split among 3 ranks: expected rows of at most"));
}

TEST(ShardedBackendErrorsTest, RanksSayWhatTheyAre) {
  BackendOptions options = OptionsOf(ComputeMode::kAuto, 2);
  options.num_threads = 3;
  options.isa = "scalar";
  const BackendInfo info = (*MakeBackend("cpu", options))->info();
  EXPECT_EQ(info.name, "cpu");
  EXPECT_EQ(info.isa, "2 x scalar");
  EXPECT_EQ(info.num_threads, 3);
}

// A rank whose device has no more memory from some moment on.
class FullBackend final : public cuda::CudaBackend {
 public:
  FullBackend()
      : CudaBackend(ComputeMode::kF32,
                    std::make_unique<EmulatedDevice>(simt::EmulatorOptions{}, false)) {}
  bool is_full = false;

  absl::StatusOr<std::shared_ptr<void>> Allocate(int64_t bytes) override {
    if (is_full) return Refusal();
    return CudaBackend::Allocate(bytes);
  }
  absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(
      std::span<const TensorView> parts) override {
    if (is_full) return Refusal();
    return CudaBackend::PackMatrix(parts);
  }
  absl::StatusOr<std::unique_ptr<PackedDelta>> PackDelta(const DeltaOp& op,
                                                         PackShare& share) override {
    if (is_full) return Refusal();
    return CudaBackend::PackDelta(op, share);
  }
  absl::StatusOr<std::unique_ptr<KvStorage>> AllocateKv(const KvShape& shape,
                                                        int64_t num_blocks) override {
    if (is_full) return Refusal();
    return CudaBackend::AllocateKv(shape, num_blocks);
  }

 private:
  static absl::Status Refusal() { return absl::ResourceExhaustedError("rank 1 is full"); }
};

struct FullRank {
  FullBackend* backend = nullptr;
  Ranks ranks;
};

FullRank MakeFullRank() {
  FullRank made;
  auto full = std::make_unique<FullBackend>();
  made.backend = full.get();
  made.ranks.backends.push_back(
      std::make_unique<EmulatedBackend>(ComputeMode::kF32, simt::EmulatorOptions{}));
  Backend* first = made.ranks.backends.back().get();
  made.ranks.backends.push_back(std::move(full));
  Backend* second = made.ranks.backends.back().get();
  made.ranks.communicators =
      MakeHostGroup(2, [=](int rank) { (rank == 0 ? first : second)->Finish(); });
  return made;
}

TEST(ShardedBackendErrorsTest, ARankThatIsFullAtTheStartIsAnError) {
  FullRank made = MakeFullRank();
  made.backend->is_full = true;
  EXPECT_EQ(ShardedBackend::Create(std::move(made.ranks)).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(ShardedBackendErrorsTest, ARankThatIsFullLaterIsAnErrorOfThatCallAlone) {
  FullRank made = MakeFullRank();
  FullBackend& full = *made.backend;
  const std::unique_ptr<ShardedBackend> ranks = *ShardedBackend::Create(std::move(made.ranks));
  const StoredWeight weight = MakeWeight(DType::kF32, 8, 16, 1);
  const TensorView view = weight.view();
  PackShare share;
  full.is_full = true;
  constexpr auto kFull = absl::StatusCode::kResourceExhausted;
  EXPECT_EQ(ranks->Allocate(100).status().code(), kFull);
  EXPECT_EQ(ranks->PackMatrix({&view, 1}).status().code(), kFull);
  EXPECT_EQ(ranks->PackDelta(Dense{view}, share).status().code(), kFull);
  EXPECT_EQ(ranks->AllocateKv({1, 2, 16}, 2).status().code(), kFull);
  full.is_full = false;
  const std::unique_ptr<PackedMatrix> matrix = *ranks->PackMatrix({&view, 1});
  const std::shared_ptr<void> x_memory = *ranks->Allocate(16 * 4);
  const std::shared_ptr<void> y_memory = *ranks->Allocate(8 * 4);
  const FloatRows x = RowsIn(x_memory, 1, 16);
  std::fill_n(x.data, 16, 1.0f);
  ranks->HostWrote(x);
  ranks->Gemm({matrix.get(), nullptr, false, {}}, {x.data, DType::kF32, 1, 16, 16},
              RowsIn(y_memory, 1, 8));
  ranks->Finish();
  for (int64_t row = 0; row < 8; ++row) {
    double sum = 0;
    for (int64_t i = 0; i < 16; ++i) sum += weight.values[static_cast<size_t>(row * 16 + i)];
    EXPECT_NEAR(static_cast<const float*>(y_memory.get())[row], sum, 1e-4) << row;
  }
}

}  // namespace
}  // namespace polyad::test
