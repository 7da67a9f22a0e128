#include "tests/kernels/delta_specs.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/api/delta_check.h"
#include "tests/kernels/op_inputs.h"
#include "tests/kernels/row_cases.h"

namespace polyad::test {

std::vector<float> DeltaTensors::Values(int64_t size, float deviation) {
  std::vector<float> values = RandomValues(size, seed_++, deviation);
  for (float& value : values) {
    if (magnitudes_) value = std::abs(value);
  }
  return values;
}

TensorView DeltaTensors::Matrix(DType dtype, int64_t rows, int64_t cols, float deviation) {
  matrices_.push_back(StoreWeight(dtype, rows, cols, Values(rows * cols, deviation)));
  return matrices_.back().view();
}

std::span<const float> DeltaTensors::Vector(int64_t size, float deviation) {
  return Keep(Values(size, deviation));
}

std::span<const float> DeltaTensors::Keep(std::vector<float> values) {
  vectors_.push_back(std::move(values));
  return vectors_.back();
}

std::span<const uint32_t> DeltaTensors::Words(int64_t size) {
  std::mt19937 random(seed_++);
  std::vector<uint32_t> words(static_cast<size_t>(size));
  for (uint32_t& word : words) word = magnitudes_ ? ~0u : static_cast<uint32_t>(random());
  words_.push_back(std::move(words));
  return words_.back();
}

std::span<const int32_t> DeltaTensors::Indices(std::vector<int32_t> values) {
  indices_.push_back(std::move(values));
  return indices_.back();
}

std::span<const int32_t> DeltaTensors::Subset(int64_t end, double chance) {
  std::mt19937 random(seed_++);
  std::bernoulli_distribution taken(chance);
  std::vector<int32_t> values;
  for (int64_t i = 0; i < end; ++i) {
    if (taken(random)) values.push_back(static_cast<int32_t>(i));
  }
  return Indices(std::move(values));
}

std::span<const int32_t> DeltaTensors::Permutation(int64_t size) {
  std::mt19937 random(seed_++);
  std::vector<int32_t> values(static_cast<size_t>(size));
  std::iota(values.begin(), values.end(), 0);
  std::shuffle(values.begin(), values.end(), random);
  return Indices(std::move(values));
}

namespace {

using Specs = std::vector<DeltaSpec>;

void AddLowRank(Specs& specs) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    specs.push_back(
        {absl::StrFormat("low_rank_%s", InfoOf(dtype).name), DeltaStage::kApply,
         [dtype](DeltaTensors& tensors) {
           return LowRank{tensors.Matrix(dtype, 5, 48), tensors.Matrix(dtype, 40, 5), 0.75f};
         },
         2});
  }
  specs.push_back({"low_rank_vectors", DeltaStage::kApply,
                   [](DeltaTensors& tensors) {
                     return LowRank{tensors.Matrix(DType::kF32, 33, 37),
                                    tensors.Matrix(DType::kF32, 41, 33), 0.75f, tensors.Vector(33),
                                    tensors.Vector(41)};
                   },
                   2});
  specs.push_back({"low_rank_inner", DeltaStage::kApply,
                   [](DeltaTensors& tensors) {
                     return LowRank{tensors.Matrix(DType::kBF16, 16, 64),
                                    tensors.Matrix(DType::kBF16, 64, 16), 1.0f, tensors.Vector(16)};
                   },
                   1});
}

void AddMatrices(Specs& specs) {
  specs.push_back({"dense", DeltaStage::kApply,
                   [](DeltaTensors& tensors) {
                     return Dense{tensors.Matrix(DType::kF16, 70, 45), 0.3f};
                   },
                   1});
  specs.push_back({"dense_rows", DeltaStage::kApply, [](DeltaTensors& tensors) {
                     const auto rows = tensors.Indices({0, 3, 31, 32, 60, 77});
                     return DenseRows{rows, tensors.Matrix(DType::kF32, 6, 64), 78};
                   }});
  // Square and oblong factors, either the larger; f32 factors of bf16 numbers lose nothing.
  const int64_t factors[][4] = {
      {4, 4, 24, 24}, {3, 5, 17, 2}, {20, 12, 3, 4}, {1, 2, 33, 40}, {3, 37, 5, 2}};
  for (const auto& [l, m, k, n] : factors) {
    specs.push_back({absl::StrFormat("kronecker_%dx%d_%dx%d", l, m, k, n), DeltaStage::kApply,
                     [l = l, m = m, k = k, n = n](DeltaTensors& tensors) {
                       return Kronecker{tensors.Matrix(DType::kF32, l, m),
                                        tensors.Matrix(DType::kBF16, k, n), 0.3f};
                     }});
  }
}

Sparse MakeSparse(DeltaTensors& tensors, int64_t out, int64_t in, double density) {
  std::vector<int32_t> row_begin = {0};
  std::vector<int32_t> columns;
  for (int64_t row = 0; row < out; ++row) {
    // Rows without values, and rows much longer than the others.
    const double chance = row % 7 == 3 ? 0.0 : row % 11 == 5 ? 0.9 : density;
    const auto subset = tensors.Subset(in, chance);
    columns.insert(columns.end(), subset.begin(), subset.end());
    row_begin.push_back(static_cast<int32_t>(columns.size()));
  }
  const auto nnz = static_cast<int64_t>(columns.size());
  return Sparse{tensors.Indices(std::move(row_begin)), tensors.Indices(std::move(columns)),
                tensors.Vector(nnz), in};
}

void AddSparse(Specs& specs) {
  specs.push_back({"sparse", DeltaStage::kApply,
                   [](DeltaTensors& tensors) { return MakeSparse(tensors, 83, 130, 0.1); }});
  specs.push_back({"sparse_wide", DeltaStage::kApply,
                   [](DeltaTensors& tensors) { return MakeSparse(tensors, 3, 66000, 0.001); }});
  specs.push_back({"sparse_few", DeltaStage::kApply,
                   [](DeltaTensors& tensors) { return MakeSparse(tensors, 3, 5, 0.5); }});
  specs.push_back({"sparse_nothing", DeltaStage::kApply,
                   [](DeltaTensors& tensors) { return MakeSparse(tensors, 4, 8, 0.0); }});
}

void AddSignBits(Specs& specs) {
  const auto add = [&specs](const char* name, int64_t in, int64_t out, int64_t scales,
                            int64_t groups) {
    specs.push_back({name, DeltaStage::kApply, [=](DeltaTensors& tensors) {
                       return SignBits{tensors.Words(out * ((in + 31) / 32)),
                                       tensors.Vector(scales), out, in, groups};
                     }});
  };
  add("sign_bits", 64, 33, 1, 1);
  add("sign_bits_ragged", 75, 20, 1, 1);
  add("sign_bits_rows", 100, 18, 18, 1);
  add("sign_bits_groups", 192, 21, 63, 3);
  add("sign_bits_one", 1, 1, 1, 1);
  add("sign_bits_panels", 95, 203, 203, 1);
  add("sign_bits_panels_of_groups", 256, 150, 300, 2);
}

struct BottleneckParts {
  bool biases = true;
  bool norm = false;
  int64_t scales = 0;  // 0, 1 or out
  int64_t in = 40;
  int64_t width = 19;
  int64_t out = 52;
};

Bottleneck MakeBottleneck(DeltaTensors& tensors, ActivationKind kind,
                          const BottleneckParts& parts) {
  Bottleneck op;
  op.down = tensors.Matrix(DType::kF32, parts.width, parts.in, 0.4f);
  op.up = tensors.Matrix(DType::kBF16, parts.out, parts.width, 0.5f);
  // |act(h)| <= 1.13 |h|, or 1, which is less than these sums of magnitudes.
  op.activation = tensors.magnitudes() ? ActivationKind::kIdentity : kind;
  if (parts.biases) op.down_bias = tensors.Vector(parts.width);
  if (parts.biases) op.up_bias = tensors.Vector(parts.out);
  op.scale = tensors.Vector(parts.scales);
  if (parts.norm && !tensors.magnitudes()) {
    op.norm.weight = tensors.Vector(parts.in, 0.7f);
    op.norm.bias = tensors.Vector(parts.in, 0.7f);
  }
  return op;
}

void AddBottlenecks(Specs& specs) {
  for (ActivationKind kind :
       {ActivationKind::kSilu, ActivationKind::kGeluTanh, ActivationKind::kGeluErf,
        ActivationKind::kRelu, ActivationKind::kTanh, ActivationKind::kQuickGelu,
        ActivationKind::kLeakyRelu, ActivationKind::kSigmoid, ActivationKind::kIdentity}) {
    specs.push_back({absl::StrFormat("bottleneck_%s", NameOf(kind)), DeltaStage::kApply,
                     [kind](DeltaTensors& tensors) { return MakeBottleneck(tensors, kind, {}); },
                     2});
  }
  const auto add = [&specs](const char* name, const BottleneckParts& parts, DeltaStage stage) {
    DeltaSpec spec{name, stage,
                   [parts](DeltaTensors& tensors) {
                     return MakeBottleneck(tensors, ActivationKind::kGeluErf, parts);
                   },
                   parts.norm ? 3.0 : 2.0, parts.norm};
    specs.push_back(std::move(spec));
  };
  add("bottleneck_bare", {.biases = false}, DeltaStage::kApply);
  add("bottleneck_scale", {.scales = 1}, DeltaStage::kApply);
  add("bottleneck_scales", {.scales = 52}, DeltaStage::kApply);
  add("bottleneck_norm", {.norm = true}, DeltaStage::kApply);
  add("bottleneck_norm_scales", {.norm = true, .scales = 52, .width = 70}, DeltaStage::kApply);
  add("bottleneck_input", {.scales = 1, .out = 40}, DeltaStage::kInput);
  add("bottleneck_norm_input", {.norm = true, .out = 40}, DeltaStage::kInput);
}

PairRotation MakePairRotation(DeltaTensors& tensors, int64_t out, int64_t group) {
  const auto f = tensors.Vector(out);
  const auto g = tensors.Vector(out);
  if (!tensors.magnitudes()) return {f, g, group};
  std::vector<float> signs(g.begin(), g.end());  // the terms of first halves are subtracted
  for (int64_t i = 0; i < out; ++i) {
    if (i % group < group / 2) signs[static_cast<size_t>(i)] *= -1.0f;
  }
  return {f, tensors.Keep(std::move(signs)), group};
}

void AddTransforms(Specs& specs) {
  specs.push_back(
      {"bias", DeltaStage::kApply, [](DeltaTensors& tensors) { return Bias{tensors.Vector(37)}; }});
  specs.push_back({"input_scale", DeltaStage::kInput,
                   [](DeltaTensors& tensors) { return InputScale{tensors.Vector(45)}; }});
  specs.push_back({"output_scale", DeltaStage::kOutput,
                   [](DeltaTensors& tensors) { return OutputScale{tensors.Vector(45)}; }});
  for (const auto& [out, group] :
       {std::pair<int64_t, int64_t>{64, 64}, {96, 32}, {60, 2}, {42, 14}}) {
    specs.push_back({absl::StrFormat("pair_rotation_%d_%d", out, group), DeltaStage::kOutput,
                     [out = out, group = group](DeltaTensors& tensors) {
                       return MakePairRotation(tensors, out, group);
                     }});
  }
  const auto rotation = [&specs](int64_t in, int64_t size, bool shared, bool ordered) {
    specs.push_back({absl::StrFormat("block_rotation_%d_%d%s%s", in, size, shared ? "_shared" : "",
                                     ordered ? "_ordered" : ""),
                     DeltaStage::kInput, [=](DeltaTensors& tensors) {
                       BlockRotation op;
                       if (ordered) op.order = tensors.Permutation(in);
                       op.blocks = tensors.Vector(shared ? size * size : in * size);
                       op.size = size;
                       op.in = in;
                       return op;
                     }});
  };
  rotation(96, 32, false, false);
  rotation(96, 4, false, true);
  rotation(60, 6, true, true);
  rotation(54, 27, false, true);
  rotation(80, 80, false, false);
  rotation(7, 1, true, false);
}

void AddEmbeddings(Specs& specs) {
  specs.push_back({"embedding_rows", DeltaStage::kEmbedding, [](DeltaTensors& tensors) {
                     const auto ids = tensors.Indices({0, 2, 5, 10});
                     return EmbeddingRows{ids, tensors.Matrix(DType::kF16, 4, 37)};
                   }});
  for (bool scaled : {false, true}) {
    specs.push_back({scaled ? "embedding_low_rank_scaled" : "embedding_low_rank",
                     DeltaStage::kEmbedding, [scaled](DeltaTensors& tensors) {
                       EmbeddingLowRank op;
                       op.a = tensors.Matrix(DType::kF32, 6, 9);  // tokens 9 and 10 have no column
                       op.b = tensors.Matrix(DType::kBF16, 83, 6);
                       op.scale = 0.75f;
                       if (scaled) op.column_scale = tensors.Vector(83);
                       return op;
                     }});
  }
}

}  // namespace

std::vector<DeltaSpec> DeltaSpecs() {
  Specs specs;
  AddLowRank(specs);
  AddMatrices(specs);
  AddSparse(specs);
  AddSignBits(specs);
  AddBottlenecks(specs);
  AddTransforms(specs);
  AddEmbeddings(specs);
  return specs;
}

DeltaWidths WidthsOf(const DeltaSpec& spec) {
  DeltaTensors tensors(false);
  const DeltaShape shape = ShapeOf(spec.make(tensors));
  return {std::max<int64_t>(shape.in, 1), shape.out};
}

}  // namespace polyad::test
