// What the ranks of a group compute together, on the CPU backend, against one backend that has the
// whole layer.

#include "kernels/shard/sharded_linear.h"

#include <cmath>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/kernels/op_inputs.h"
#include "tests/kernels/shard/fake_communicator.h"
#include "tests/kernels/stored_weight.h"

namespace polyad::test {
namespace {

constexpr int64_t kRows = 7;

std::unique_ptr<Backend> MakeCpu(ComputeMode mode) {
  BackendOptions options;
  options.mode = mode;
  options.num_threads = 1;
  return *MakeBackend("cpu", options);
}

// A delta of one part for some rows.
struct TestDelta {
  int64_t part;
  int64_t row_begin;
  int64_t row_end;
  StoredWeight a;
  StoredWeight b;
  std::vector<float> inner;
  std::vector<float> outer;
  float scale;

  LowRank op() const { return {a.view(), b.view(), 0.7f, inner, outer}; }
};

struct TestLayer {
  std::vector<StoredWeight> parts;
  std::vector<int64_t> units;
  std::vector<float> bias;
  std::vector<TestDelta> deltas;

  int64_t in() const { return parts[0].cols; }
  int64_t out() const {
    int64_t out = 0;
    for (const StoredWeight& part : parts) out += part.rows;
    return out;
  }
  int64_t ColumnOf(int64_t part) const {
    int64_t column = 0;
    for (int64_t i = 0; i < part; ++i) column += parts[static_cast<size_t>(i)].rows;
    return column;
  }
};

TestLayer MakeLayer(const std::vector<int64_t>& outs, int64_t in, int64_t unit, DType dtype) {
  TestLayer layer;
  for (const int64_t out : outs) {
    layer.parts.push_back(MakeWeight(dtype, out, in, static_cast<uint32_t>(layer.parts.size())));
    layer.units.push_back(unit);
  }
  layer.bias = RandomValues(layer.out(), 31);
  return layer;
}

void AddDelta(TestLayer& layer, int64_t part, int64_t row_begin, int64_t row_end, int64_t rank) {
  const auto seed = static_cast<uint32_t>(100 + 2 * layer.deltas.size());
  const int64_t out = layer.parts[static_cast<size_t>(part)].rows;
  layer.deltas.push_back({part,
                          row_begin,
                          row_end,
                          MakeWeight(DType::kBF16, rank, layer.in(), seed),
                          MakeWeight(DType::kBF16, out, rank, seed + 1),
                          {},
                          {},
                          1.0f});
}

// Everything on one backend.
std::vector<double> Whole(const TestLayer& layer, Backend& backend, ActivationRows x) {
  std::vector<TensorView> views;
  for (const StoredWeight& part : layer.parts) views.push_back(part.view());
  const std::unique_ptr<PackedMatrix> weight = *backend.PackMatrix(views);
  FloatBuffer y(x.rows, layer.out());
  backend.Gemm({weight.get(), layer.bias.data(), false, {}}, x, y.view());
  for (const TestDelta& delta : layer.deltas) {
    PackShare share;
    const std::unique_ptr<PackedDelta> packed = *backend.PackDelta(delta.op(), share);
    const DeltaSegment segment{delta.row_begin, delta.row_end, layer.ColumnOf(delta.part),
                               packed.get(), delta.scale};
    backend.Apply({&segment, 1}, x, y.view());
  }
  return y.Values();
}

std::unique_ptr<ShardedLinear> Shard(const TestLayer& layer, Backend& backend, Communicator& group,
                                     ShardAxis axis) {
  std::vector<LinearPart> parts;
  for (size_t i = 0; i < layer.parts.size(); ++i) {
    parts.push_back({layer.parts[i].view(), layer.units[i]});
  }
  absl::StatusOr<std::unique_ptr<ShardedLinear>> linear =
      ShardedLinear::Create(backend, group, axis, parts, layer.bias.data(), {kRows * 400});
  EXPECT_TRUE(linear.ok()) << linear.status();
  return *std::move(linear);
}

// The deltas of rows [begin, end) as a call of those rows has them.
void RunRows(const TestLayer& layer, ShardedLinear& linear, ActivationRows x, FloatRows y,
             int64_t begin, int64_t end) {
  std::vector<ShardedLowRank> packed;
  for (const TestDelta& delta : layer.deltas)
    packed.push_back(*linear.Pack(delta.op(), delta.part));
  std::vector<ShardedSegment> segments;
  for (size_t i = 0; i < packed.size(); ++i) {
    const TestDelta& delta = layer.deltas[i];
    const int64_t first = std::max(begin, delta.row_begin);
    const int64_t last = std::min(end, delta.row_end);
    if (first >= last) continue;
    segments.push_back({first - begin, last - begin, &packed[i], delta.scale});
  }
  linear.Run(x, segments, y);
}

// Columns [begin, begin + y.cols) of wide rows, to or from y.
void CopyColumns(std::vector<double>& wide, int64_t width, int64_t begin, FloatRows y) {
  for (int64_t row = 0; row < y.rows; ++row) {
    for (int64_t col = 0; col < y.cols; ++col) {
      wide[static_cast<size_t>(row * width + begin + col)] = y.Row(row)[col];
    }
  }
}

std::vector<float> ColumnsOf(const std::vector<float>& wide, int64_t width, Slice columns) {
  std::vector<float> part;
  for (size_t row = 0; row < wide.size() / static_cast<size_t>(width); ++row) {
    const auto begin = wide.begin() + static_cast<int64_t>(row) * width;
    part.insert(part.end(), begin + columns.begin, begin + columns.end);
  }
  return part;
}

struct RankResults {
  std::vector<double> whole;               // of outputs split, put together
  std::vector<std::vector<double>> ranks;  // of inputs split, each rank's
};

RankResults RunSharded(const TestLayer& layer, ComputeMode mode, ShardAxis axis, FakeGroup& group,
                       const std::vector<float>& x, int size, int64_t begin = 0) {
  const int64_t rows = static_cast<int64_t>(x.size()) / layer.in();
  RankResults results;
  results.whole.resize(static_cast<size_t>(rows * layer.out()));
  results.ranks.resize(static_cast<size_t>(size));
  group.Run([&](Communicator& member) {
    const std::unique_ptr<Backend> backend = MakeCpu(mode);
    const std::unique_ptr<ShardedLinear> linear = Shard(layer, *backend, member, axis);
    const std::vector<float> own = ColumnsOf(x, layer.in(), linear->own_inputs());
    ActivationBuffer own_x(*backend, rows, linear->num_own_inputs(), own);
    FloatBuffer y(rows, linear->num_own_outputs());
    RunRows(layer, *linear, own_x.rows(), y.view(), begin, begin + rows);
    if (axis == ShardAxis::kInputs) {
      results.ranks[static_cast<size_t>(member.rank())] = y.Values();
      return;
    }
    int64_t from = 0;
    for (size_t part = 0; part < layer.parts.size(); ++part) {  // each rank's own elements
      const Slice outputs = linear->OwnOutputs(static_cast<int64_t>(part));
      CopyColumns(results.whole, layer.out(),
                  layer.ColumnOf(static_cast<int64_t>(part)) + outputs.begin,
                  y.view().Columns(from, outputs.size()));
      from += outputs.size();
    }
  });
  return results;
}

// |W_o| |x| and |B_o| |A| |x| for what a sum in another order, or a rounding of the middle, may do.
void ExpectNear(const std::vector<double>& got, const std::vector<double>& want,
                const TestLayer& layer, const std::vector<float>& x, ComputeMode mode) {
  const double eps = mode == ComputeMode::kF32 ? 32 * kEps32 : kEps16;
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const auto row = static_cast<int64_t>(i) / layer.out();
    const auto column = static_cast<int64_t>(i) % layer.out();
    const double of_x = NormOf(x.data() + row * layer.in(), layer.in());
    double size = 1;  // the bias
    for (size_t part = 0; part < layer.parts.size(); ++part) {
      const int64_t own = column - layer.ColumnOf(static_cast<int64_t>(part));
      const StoredWeight& weight = layer.parts[part];
      if (own < 0 || own >= weight.rows) continue;
      size += NormOf(weight.values.data() + own * weight.cols, weight.cols) * of_x;
      for (const TestDelta& delta : layer.deltas) {
        if (delta.part != static_cast<int64_t>(part)) continue;
        if (row < delta.row_begin || row >= delta.row_end) continue;
        size += NormOf(delta.b.values.data() + own * delta.b.cols, delta.b.cols) *
                NormOf(delta.a.values.data(), delta.a.rows * delta.a.cols) * of_x;
      }
    }
    ASSERT_NEAR(got[i], want[i], eps * size) << "row " << row << " column " << column;
  }
}

// Attention's first layer: adapters of any rank on any of q, k and v.
TestLayer QkvLayer() {
  TestLayer layer = MakeLayer({64, 32, 32}, 96, 8, DType::kBF16);
  AddDelta(layer, 0, 0, 4, 16);
  AddDelta(layer, 1, 0, 4, 1);
  AddDelta(layer, 2, 2, 5, 5);
  AddDelta(layer, 0, 5, 7, 33);
  layer.deltas[2].scale = -0.5f;
  layer.deltas[3].inner = RandomValues(33, 8);  // as VeRA has them
  layer.deltas[3].outer = RandomValues(64, 9);
  return layer;
}

TestLayer DownLayer() {
  TestLayer layer = MakeLayer({48}, 100, 1, DType::kBF16);
  AddDelta(layer, 0, 0, 3, 8);
  AddDelta(layer, 0, 2, 7, 3);
  layer.deltas[1].inner = RandomValues(3, 8);
  layer.deltas[1].outer = RandomValues(48, 9);
  return layer;
}

class ShardedLinearTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, ShardedLinearTest, testing::Values(1, 2, 3, 4));

TEST_P(ShardedLinearTest, SplitByOutputsTheRanksHaveWhatOneHas) {
  const TestLayer layer = QkvLayer();
  const std::vector<float> x = RandomValues(kRows * layer.in(), 5);
  for (const ComputeMode mode : {ComputeMode::kF32, ComputeMode::kBF16}) {
    FakeGroup group(GetParam());
    const std::unique_ptr<Backend> backend = MakeCpu(mode);
    ActivationBuffer all(*backend, kRows, layer.in(), x);
    const std::vector<double> want = Whole(layer, *backend, all.rows());
    ExpectNear(RunSharded(layer, mode, ShardAxis::kOutputs, group, x, GetParam()).whole, want,
               layer, x, mode);
  }
}

TEST_P(ShardedLinearTest, SplitByInputsEachRankHasWhatOneHas) {
  const TestLayer layer = DownLayer();
  const std::vector<float> x = RandomValues(kRows * layer.in(), 5);
  for (const ComputeMode mode : {ComputeMode::kF32, ComputeMode::kBF16}) {
    FakeGroup group(GetParam());
    const std::unique_ptr<Backend> backend = MakeCpu(mode);
    ActivationBuffer all(*backend, kRows, layer.in(), x);
    const std::vector<double> want = Whole(layer, *backend, all.rows());
    const RankResults got = RunSharded(layer, mode, ShardAxis::kInputs, group, x, GetParam());
    ExpectNear(got.ranks[0], want, layer, x, mode);
    for (const std::vector<double>& rank : got.ranks) EXPECT_EQ(rank, got.ranks[0]);
  }
}

TEST_P(ShardedLinearTest, ARowsBitsDoNotDependOnTheRowsBesideIt) {
  const std::pair<TestLayer, ShardAxis> layers[] = {{QkvLayer(), ShardAxis::kOutputs},
                                                    {DownLayer(), ShardAxis::kInputs}};
  for (const auto& [layer, axis] : layers) {
    const std::vector<float> x = RandomValues(kRows * layer.in(), 5);
    FakeGroup group(GetParam());
    const RankResults together = RunSharded(layer, ComputeMode::kBF16, axis, group, x, GetParam());
    for (const int64_t row : {0, 2, 6}) {
      const auto begin = x.begin() + row * layer.in();
      const RankResults alone = RunSharded(layer, ComputeMode::kBF16, axis, group,
                                           {begin, begin + layer.in()}, GetParam(), row);
      const std::vector<double>& one = axis == ShardAxis::kOutputs ? alone.whole : alone.ranks[0];
      const std::vector<double>& all =
          axis == ShardAxis::kOutputs ? together.whole : together.ranks[0];
      const auto own = all.begin() + row * layer.out();
      EXPECT_EQ(one, std::vector<double>(own, own + layer.out())) << "row " << row;
    }
  }
}

TEST(ShardedLinearTrafficTest, DeltasCostTheGroupTheirMiddles) {
  constexpr int kSize = 4;
  FakeGroup group(kSize);
  const TestLayer qkv = QkvLayer();
  RunSharded(qkv, ComputeMode::kF32, ShardAxis::kOutputs, group, RandomValues(kRows * qkv.in(), 5),
             kSize);
  EXPECT_EQ(group.numbers_gathered(), 4 * 4 + 4 * 1 + 3 * 2 + 2 * 9);
  EXPECT_EQ(group.numbers_reduced(), 0);
  const TestLayer down = DownLayer();
  RunSharded(down, ComputeMode::kF32, ShardAxis::kInputs, group, RandomValues(kRows * down.in(), 5),
             kSize);
  EXPECT_EQ(group.numbers_reduced(), 3 * 8 + 5 * 3 + kRows * 48);
}

TEST(ShardedLinearErrorsTest, WhatCannotBeSplitIsSaid) {
  FakeGroup group(4);
  const TestLayer layer = MakeLayer({24}, 96, 8, DType::kBF16);  // three heads
  const TestLayer down = DownLayer();
  group.Run([&](Communicator& member) {
    const std::unique_ptr<Backend> backend = MakeCpu(ComputeMode::kF32);
    const LinearPart part{layer.parts[0].view(), 8};
    const auto create = [&](ShardAxis axis, std::vector<LinearPart> parts) {
      return ShardedLinear::Create(*backend, member, axis, parts, nullptr, {1}).status();
    };
    const absl::Status status = create(ShardAxis::kOutputs, {part});
    EXPECT_EQ(status.ok(), member.rank() < 3);
    if (!status.ok()) {
      EXPECT_EQ(status.message(), "24 in units of 8 cannot be split among 4");
    }
    EXPECT_FALSE(create(ShardAxis::kInputs, {part, part}).ok());
    const std::unique_ptr<ShardedLinear> linear = Shard(down, *backend, member, ShardAxis::kInputs);
    const StoredWeight a = MakeWeight(DType::kBF16, 8, 90, 1);
    EXPECT_FALSE(linear->Pack({a.view(), down.deltas[0].b.view()}, 0).ok());
  });
}

}  // namespace
}  // namespace polyad::test
