// Families that change weights, against the dense weights and biases that their formulas give: what
// the lowered ops do to rows on the reference backend is what the merged matrix does.
#include <cmath>
#include <cstring>
#include <functional>
#include <map>

#include "engine/adapters/dense_math.h"
#include "engine/adapters/family_table.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/adapters/adapter_bytes.h"

namespace polyad {
namespace {

constexpr int64_t kIn = 32;
constexpr SiteRef kQuery{0, Site::kQ};
const std::string kModule = "base_model.model.model.layers.0.self_attn.q_proj.";

ModelSpec TinySpec() {
  ModelSpec spec;
  spec.architecture = Architecture::kQwen2;
  spec.hidden_size = kIn;
  spec.num_layers = 2;
  spec.num_heads = 3;
  spec.num_kv_heads = 1;
  spec.head_dim = 16;
  spec.intermediate_size = 48;
  spec.vocab_size = 100;
  spec.max_position = 64;
  return spec;
}

std::vector<float> Numbers(size_t count, float scale, float phase) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = scale * std::sin(phase + 1.7f * static_cast<float>(i) * (1.0f + 0.01f * phase));
  }
  return values;
}

Matrix SomeMatrix(int64_t rows, int64_t cols, float scale, float phase) {
  return Matrix(rows, cols, Numbers(static_cast<size_t>(rows * cols), scale, phase));
}

class SomeBase final : public BaseWeights {
 public:
  StatusOr<std::vector<float>> Matrix(SiteRef site) const override {
    const SiteShape shape = ShapeOf(TinySpec(), site.site);
    return Numbers(static_cast<size_t>(shape.out * shape.in), 0.4f, 0.3f);
  }
  StatusOr<std::vector<float>> Bias(SiteRef site) const override {
    return Numbers(static_cast<size_t>(ShapeOf(TinySpec(), site.site).out), 0.7f, 2.1f);
  }
  StatusOr<NormVectors> Norm(int64_t, NormSite) const override { return NormVectors{}; }
};

struct Linear {
  Matrix weight;
  std::vector<float> bias;
};

Linear BaseLinear() {
  const SiteShape shape = ShapeOf(TinySpec(), Site::kQ);
  return {Matrix(shape.out, shape.in, *SomeBase().Matrix(kQuery)), *SomeBase().Bias(kQuery)};
}

TestTensor Tensor(const std::string& leaf, std::vector<int64_t> shape,
                  const std::vector<float>& values) {
  const auto* bytes = reinterpret_cast<const char*>(values.data());
  return {kModule + leaf, "F32", std::move(shape),
          std::string(bytes, values.size() * sizeof(float))};
}

TestTensor Tensor(const std::string& leaf, const Matrix& m) {
  return Tensor(leaf, {m.rows, m.cols}, m.values);
}

TestTensor Integers(const std::string& leaf, std::vector<int64_t> shape,
                    const std::vector<int32_t>& values) {
  const auto* bytes = reinterpret_cast<const char*>(values.data());
  return {kModule + leaf, "I32", std::move(shape),
          std::string(bytes, values.size() * sizeof(int32_t))};
}

// Rows through the lowered program at the query site, as AdaptedLinear runs one site.
std::vector<float> Run(const AdapterProgram& program, const std::vector<float>& rows,
                       int64_t count) {
  BackendOptions options;
  options.mode = ComputeMode::kF32;
  StatusOr<std::unique_ptr<Backend>> backend = MakeBackend("reference", options);
  const Linear base = BaseLinear();
  const int64_t out = base.weight.rows;
  std::vector<float> x1 = rows;
  std::vector<float> y(static_cast<size_t>(count * out));
  ActivationRows input{const_cast<float*>(rows.data()), DType::kF32, count, kIn, kIn};
  ActivationRows transformed{x1.data(), DType::kF32, count, kIn, kIn};
  FloatRows output{y.data(), count, out, out};
  PackShare share;
  std::vector<std::unique_ptr<PackedDelta>> packed;
  const auto run = [&](OpStage stage,
                       const std::function<void(std::span<const DeltaSegment>)>& apply) {
    for (const SiteOp& op : program.ops) {
      if (op.stage != stage) continue;
      EXPECT_EQ(op.site, kQuery);
      packed.push_back(std::move((*backend)->PackDelta(op.op, share)).value());
      const DeltaSegment segment{0, count, 0, packed.back().get()};
      apply(std::span(&segment, 1));
    }
  };
  run(OpStage::kInput, [&](auto segments) { (*backend)->TransformInput(segments, transformed); });
  const Matrix product = MultiplyTransposed(Matrix(count, kIn, x1), base.weight);
  for (size_t i = 0; i < y.size(); ++i)
    y[i] = product.values[i] + base.bias[i % static_cast<size_t>(out)];
  run(OpStage::kOutput, [&](auto segments) { (*backend)->TransformOutput(segments, output); });
  run(OpStage::kDelta, [&](auto segments) { (*backend)->Apply(segments, input, output); });
  return y;
}

// The lowered file equals `merged` on rows of all sizes.
void ExpectMerged(const std::string& config, const std::vector<TestTensor>& tensors,
                  const Linear& merged) {
  const ModelSpec spec = TinySpec();
  const SomeBase base;
  StatusOr<AdapterSource> source = AdapterSource::FromBytes(config, SafetensorsBytes(tensors));
  ASSERT_TRUE(source.ok()) << source.status();
  const LoweringContext context{spec, &base};
  const StatusOr<AdapterProgram> program = LowerAdapter(*source, context);
  ASSERT_TRUE(program.ok()) << program.status();
  constexpr int64_t kRows = 9;
  const Matrix rows = SomeMatrix(kRows, kIn, 1.0f, 5.0f);
  const std::vector<float> got = Run(*program, rows.values, kRows);
  const Matrix expected = MultiplyTransposed(rows, merged.weight);
  const auto out = static_cast<size_t>(merged.weight.rows);
  double largest = 0;
  double change = 0;
  const Matrix before = MultiplyTransposed(rows, BaseLinear().weight);
  for (size_t i = 0; i < got.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(expected.values[i])));
    change = std::max(change, std::abs(static_cast<double>(expected.values[i] - before.values[i])));
  }
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], expected.values[i] + merged.bias[i % out], 4e-6 * largest)
        << "element " << i;
  }
  EXPECT_GT(change, 0.01 * largest) << "this adapter would not show";
}

// Sum of (-1)^k powers: 2 sum (-Q)^k - I, the Cayley transform of a small skew matrix.
Matrix SmallCayley(const Matrix& skew) {
  Matrix sum(skew.rows, skew.rows);
  Matrix power(skew.rows, skew.rows);
  for (int64_t i = 0; i < skew.rows; ++i) sum.At(i, i) = power.At(i, i) = 1.0f;
  for (int k = 1; k < 40; ++k) {
    power = Multiply(power, skew);
    Scale(power, -1.0);
    for (size_t i = 0; i < sum.values.size(); ++i) sum.values[i] += 2.0f * power.values[i];
  }
  return sum;
}

Matrix BlockDiagonal(const std::vector<Matrix>& blocks) {
  const int64_t size = blocks[0].rows;
  Matrix whole(size * static_cast<int64_t>(blocks.size()),
               size * static_cast<int64_t>(blocks.size()));
  for (size_t k = 0; k < blocks.size(); ++k) {
    const int64_t at = static_cast<int64_t>(k) * size;
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = 0; j < size; ++j) whole.At(at + i, at + j) = blocks[k].At(i, j);
    }
  }
  return whole;
}

TEST(WeightFamilies, Ia3ScalesOutputsWithTheirBiasOrInputs) {
  Linear merged = BaseLinear();
  const std::vector<float> scale = Numbers(static_cast<size_t>(merged.weight.rows), 1.5f, 0.4f);
  ScaleRows(merged.weight, scale);
  for (size_t i = 0; i < scale.size(); ++i) merged.bias[i] *= scale[i];
  ExpectMerged(R"({"peft_type":"IA3"})", {Tensor("ia3_l", {merged.weight.rows, 1}, scale)}, merged);
  Linear feed_forward = BaseLinear();
  const std::vector<float> input = Numbers(kIn, 1.5f, 0.9f);
  ScaleColumns(feed_forward.weight, input);
  ExpectMerged(R"({"peft_type":"IA3","feedforward_modules":["q_proj"]})",
               {Tensor("ia3_l", {1, kIn}, input)}, feed_forward);
}

TEST(WeightFamilies, LoKrIsTheKroneckerProduct) {
  Linear merged = BaseLinear();
  const Matrix w1 = SomeMatrix(6, 4, 0.3f, 1.1f);
  const Matrix a = SomeMatrix(8, 3, 0.5f, 2.2f);
  const Matrix b = SomeMatrix(3, 8, 0.5f, 3.3f);
  const Matrix w2 = Multiply(a, b);
  for (int64_t i = 0; i < merged.weight.rows; ++i) {
    for (int64_t j = 0; j < kIn; ++j)
      merged.weight.At(i, j) += 2.0f * w1.At(i / 8, j / 8) * w2.At(i % 8, j % 8);
  }
  ExpectMerged(R"({"peft_type":"LOKR","r":3,"alpha":6})",
               {Tensor("lokr_w1", w1), Tensor("lokr_w2_a", a), Tensor("lokr_w2_b", b)}, merged);
}

TEST(WeightFamilies, OftTurnsRowsByTheCayleyTransform) {
  Linear merged = BaseLinear();
  const std::vector<float> stored = Numbers(8 * 6, 0.08f, 0.7f);
  std::vector<Matrix> blocks;
  for (size_t k = 0; k < 8; ++k) {
    Matrix skew(4, 4);
    size_t next = k * 6;
    for (int64_t i = 0; i < 4; ++i) {
      for (int64_t j = i + 1; j < 4; ++j) {
        skew.At(i, j) = stored[next];
        skew.At(j, i) = -stored[next++];
      }
    }
    blocks.push_back(SmallCayley(skew));
  }
  merged.weight = MultiplyTransposed(merged.weight, BlockDiagonal(blocks));  // x1 = x R
  ExpectMerged(R"({"peft_type":"OFT","use_cayley_neumann":false})",
               {Tensor("oft_R.weight", {8, 6}, stored)}, merged);
}

TEST(WeightFamilies, BoftTurnsRowsAndScalesTheProductAlone) {
  Linear merged = BaseLinear();
  const std::vector<float> stored = Numbers(4 * 64, 0.06f, 1.9f);
  std::vector<Matrix> blocks;
  for (size_t k = 0; k < 4; ++k) {
    Matrix skew(8, 8);
    for (int64_t i = 0; i < 8; ++i) {
      for (int64_t j = 0; j < 8; ++j) {
        const auto at = k * 64;
        skew.At(i, j) = 0.5f * (stored[at + static_cast<size_t>(i * 8 + j)] -
                                stored[at + static_cast<size_t>(j * 8 + i)]);
      }
    }
    blocks.push_back(SmallCayley(skew));
  }
  merged.weight = MultiplyTransposed(merged.weight, BlockDiagonal(blocks));
  const std::vector<float> scale = Numbers(static_cast<size_t>(merged.weight.rows), 1.2f, 0.2f);
  ScaleRows(merged.weight, scale);
  ExpectMerged(
      R"({"peft_type":"BOFT"})",
      {Tensor("boft_R", {1, 4, 8, 8}, stored), Tensor("boft_s", {merged.weight.rows, 1}, scale)},
      merged);
}

TEST(WeightFamilies, RoadTurnsPairsOfHalvesOfItsGroups) {
  const Linear base = BaseLinear();
  Linear merged = base;
  const int64_t out = base.weight.rows;
  const std::vector<float> theta = Numbers(static_cast<size_t>(out / 2), 1.0f, 0.3f);
  const std::vector<float> alpha = Numbers(static_cast<size_t>(out / 2), 1.3f, 1.4f);
  for (int64_t row = 0; row < out; ++row) {  // groups of 8: row pairs with the one 4 away
    const auto pair = static_cast<size_t>(row / 8 * 4 + row % 4);
    const bool first = row % 8 < 4;
    const int64_t other = first ? row + 4 : row - 4;
    const float f = alpha[pair] * std::cos(theta[pair]);
    const float g = (first ? -1.0f : 1.0f) * alpha[pair] * std::sin(theta[pair]);
    for (int64_t j = 0; j < kIn; ++j) {
      merged.weight.At(row, j) = f * base.weight.At(row, j) + g * base.weight.At(other, j);
    }
    merged.bias[static_cast<size_t>(row)] =
        f * base.bias[static_cast<size_t>(row)] + g * base.bias[static_cast<size_t>(other)];
  }
  ExpectMerged(R"({"peft_type":"ROAD","variant":"road_1","group_size":8})",
               {Tensor("road_theta", {out / 2}, theta), Tensor("road_alpha", {out / 2}, alpha)},
               merged);
}

TEST(WeightFamilies, HiraMultipliesTheWeightEntryByEntry) {
  Linear merged = BaseLinear();
  const Matrix a = SomeMatrix(3, kIn, 0.6f, 0.5f);
  const Matrix b = SomeMatrix(merged.weight.rows, 3, 0.6f, 2.5f);
  const Matrix product = Multiply(b, a);
  for (size_t i = 0; i < product.values.size(); ++i)
    merged.weight.values[i] *= 1.0f + product.values[i];
  ExpectMerged(R"({"peft_type":"HIRA","r":3})", {Tensor("hira_A", a), Tensor("hira_B", b)}, merged);
}

TEST(WeightFamilies, C3aConvolvesBlocksInACircle) {
  Linear merged = BaseLinear();
  const std::vector<float> kernel = Numbers(6 * 4 * 8, 2.0f, 0.8f);
  for (int64_t i = 0; i < merged.weight.rows; ++i) {
    for (int64_t j = 0; j < kIn; ++j) {
      const auto block = static_cast<size_t>((i / 8) * 4 + j / 8);
      const auto turn = static_cast<size_t>((j % 8 + 8 - i % 8) % 8);
      merged.weight.At(i, j) += kernel[block * 8 + turn] / static_cast<float>(kIn);
    }
  }
  ExpectMerged(R"({"peft_type":"C3A","block_size":8})", {Tensor("c3a_kernel", {6, 4, 8}, kernel)},
               merged);
}

TEST(WeightFamilies, ShiraAddsSingleEntriesInAnyOrder) {
  Linear merged = BaseLinear();
  const std::vector<int32_t> indices = {40, 3, 3, 0, 40, 17, 1, 31, 0, 31};  // rows, then columns
  const std::vector<float> values = {3.0f, -2.0f, 1.5f, 2.5f, -4.0f};
  for (size_t i = 0; i < values.size(); ++i)
    merged.weight.At(indices[i], indices[i + 5]) += values[i];
  ExpectMerged(R"({"peft_type":"SHIRA","r":1})",
               {Tensor("shira_weight", {5}, values), Integers("shira_indices", {2, 5}, indices)},
               merged);
}

TEST(WeightFamilies, SupertuningCountsEntriesRowByRow) {
  Linear merged = BaseLinear();
  const std::vector<int32_t> indices = {5, 70, 1400};
  const std::vector<float> values = {2.0f, -3.0f, 4.0f};
  for (size_t i = 0; i < 3; ++i) merged.weight.values[static_cast<size_t>(indices[i])] += values[i];
  ExpectMerged(
      R"({"peft_type":"SUPERTUNING","sparsity":0.9})",
      {Tensor("supertuning_values", {3}, values), Integers("supertuning_indices", {3}, indices)},
      merged);
}

TEST(WeightFamilies, GloraChangesWeightAndBias) {
  const Linear base = BaseLinear();
  Linear merged = base;
  const int64_t out = base.weight.rows;
  const std::vector<float> a = Numbers(static_cast<size_t>(out), 0.5f, 0.1f);
  const Matrix left = SomeMatrix(out, 2, 0.3f, 1.0f);
  const Matrix right = SomeMatrix(2, kIn, 0.3f, 2.0f);
  const Matrix c = SomeMatrix(kIn, 1, 0.2f, 3.0f);
  const std::vector<float> e = Numbers(static_cast<size_t>(out), 0.5f, 4.0f);
  const Matrix product = Multiply(left, right);
  const Matrix coupled = Multiply(base.weight, c);
  for (int64_t i = 0; i < out; ++i) {
    const auto row = static_cast<size_t>(i);
    for (int64_t j = 0; j < kIn; ++j) {
      merged.weight.At(i, j) = base.weight.At(i, j) * (1.0f + a[row]) + product.At(i, j);
    }
    merged.bias[row] = base.bias[row] * 1.25f + e[row] + coupled.values[row];
  }
  ExpectMerged(
      R"({"peft_type":"GLORA","r":2})",
      {Tensor("glora_A.X", {out, 1}, a), Tensor("glora_B.Xd", left), Tensor("glora_B.Xu", right),
       Tensor("glora_C.X", c), Tensor("glora_D.X", {1}, {0.25f}), Tensor("glora_E.X", {out}, e)},
      merged);
}

}  // namespace
}  // namespace polyad
