#include "tests/kernels/op_cases.h"

#include "absl/strings/str_format.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/delta_cases.h"
#include "tests/kernels/matrix_cases.h"
#include "tests/kernels/row_cases.h"

namespace polyad::test {
namespace {

void AddAttentionCases(std::vector<OpCase>& cases) {
  const AttentionShape attention[] = {
      {.num_heads = 9,
       .num_kv_heads = 3,
       .head_dim = 64,
       .contexts = {{70, 5}, {3, 1}},
       .rotary_dim = 64},
      {.num_heads = 4, .num_kv_heads = 4, .head_dim = 8, .contexts = {{20, 20}}, .rotary_dim = 8},
      {.num_heads = 8, .num_kv_heads = 1, .head_dim = 80, .contexts = {{40, 7}}, .rotary_dim = 32},
      {.num_heads = 14,
       .num_kv_heads = 2,
       .head_dim = 20,
       .contexts = {{33, 1}, {17, 2}},
       .rotary_dim = 20,
       .head_norms = true},
      {.num_heads = 2, .num_kv_heads = 2, .head_dim = 16, .contexts = {{1200, 1}}},
      {.num_heads = 3, .num_kv_heads = 1, .head_dim = 32, .contexts = {{600, 30}}, .window = 70},
  };
  for (const AttentionShape& shape : attention) cases.push_back(AttentionCase(shape));
  AttentionShape prefixed = attention[0];
  prefixed.num_stored = 3;
  cases.push_back(AttentionCase(prefixed));
  prefixed.head_norms = true;
  prefixed.contexts = {{650, 3}, {40, 20}};
  prefixed.num_stored = 18;
  cases.push_back(AttentionCase(prefixed));
  prefixed.num_gates = 18;
  cases.push_back(AttentionCase(prefixed));
  prefixed.num_gates = 0;
  prefixed.first_key = 18;
  cases.push_back(AttentionCase(prefixed));
  AttentionShape gated = attention[5];
  gated.num_gates = 560;
  cases.push_back(AttentionCase(gated));
  for (KvFormat format : {KvFormat::kInt8, KvFormat::kInt4}) {
    for (AttentionShape shape : attention) {
      shape.format = format;
      cases.push_back(AttentionCase(shape));
    }
    prefixed.format = format;
    cases.push_back(AttentionCase(prefixed));
    gated.format = format;
    cases.push_back(AttentionCase(gated));
  }
  cases.push_back(GatedPrefixCase(attention[0], 3, 10));
  cases.push_back(GatedPrefixCase(attention[1], 5, 1));
  cases.push_back(GatedPrefixCase(attention[3], 2, 7));
}

}  // namespace

std::vector<OpCase> ConformanceCases() {
  std::vector<OpCase> cases;
  for (int64_t cols : {1, 15, 16, 17, 64, 100, 576}) {
    for (NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
      cases.push_back(NormCase(kind, 3, cols, /*bias=*/false));
      cases.push_back(NormCase(kind, 2, cols, /*bias=*/true));
    }
  }
  for (ActivationKind kind :
       {ActivationKind::kSilu, ActivationKind::kGeluTanh, ActivationKind::kGeluErf,
        ActivationKind::kRelu, ActivationKind::kTanh, ActivationKind::kQuickGelu,
        ActivationKind::kLeakyRelu, ActivationKind::kSigmoid, ActivationKind::kIdentity}) {
    for (int64_t cols : {1, 31, 160}) {
      cases.push_back(ActivateCase(kind, /*gated=*/true, 3, cols));
      cases.push_back(ActivateCase(kind, /*gated=*/false, 2, cols));
    }
  }
  for (int64_t cols : {1, 5, 64, 2049, 5000}) cases.push_back(ArgMaxCase(3, cols));
  cases.push_back(GatherCase(7, 20));
  AddAttentionCases(cases);
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                      DType::kQ4_1, DType::kGrouped}) {
    cases.push_back(EmbedCase(dtype, 5, 96));
    for (int64_t rows : {1, 3, 17}) cases.push_back(GemmCase({dtype, rows, 64, 50}));
    cases.push_back(ProductOfRowsCase({dtype, 17, 96, 40}, 0));
    cases.push_back(ProductOfRowsCase({dtype, 2, 64, 50}, 37));
    cases.push_back(GemmCase(
        {.dtype = dtype, .rows = 2, .in = 160, .out = 33, .bias = true, .accumulate = true}));
  }
  cases.push_back(GemmCase({.dtype = DType::kBF16, .rows = 2, .in = 7, .out = 3}));
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    cases.push_back(LowRankCase(dtype, {1, 3, 0, 16}, 48, 40));
    cases.push_back(LowRankCase(dtype, {8, 64}, 7, 5));
  }
  for (const DeltaSpec& spec : DeltaSpecs()) cases.push_back(DeltaCase(spec));
  cases.push_back(MoveCase(3, 37));
  return cases;
}

std::vector<OpCase> BenchmarkCases() {
  std::vector<OpCase> cases;
  for (int64_t rows : {1, 32, 128}) {
    cases.push_back(NormCase(NormKind::kRms, rows, 576, /*bias=*/false));
    cases.push_back(ActivateCase(ActivationKind::kSilu, /*gated=*/true, rows, 1536));
    cases.push_back(EmbedCase(DType::kBF16, rows, 576));
  }
  for (int64_t rows : {1, 32}) cases.push_back(ArgMaxCase(rows, 49152));
  const AttentionShape smol{.num_heads = 9,
                            .num_kv_heads = 3,
                            .head_dim = 64,
                            .contexts = {},
                            .rotary_dim = 64,
                            .num_layers = 30};
  const auto with = [&](int64_t count, int64_t context, int64_t chunk) {
    AttentionShape shape = smol;
    shape.contexts.assign(static_cast<size_t>(count), {context, chunk});
    cases.push_back(RotateCase(shape));
    cases.push_back(AttentionCase(shape));
  };
  with(1, 160, 1);
  with(1, 2048, 1);
  for (int64_t context : {512, 4096, 8192}) {
    for (KvFormat format : {KvFormat::kBF16, KvFormat::kInt8, KvFormat::kInt4}) {
      AttentionShape shape = smol;
      shape.contexts = {{context, 1}};
      shape.format = format;
      cases.push_back(AttentionCase(shape));
      shape.contexts.assign(8, {context, 1});
      if (context == 4096) cases.push_back(AttentionCase(shape));
      shape.contexts = {{context, 512}};
      if (context == 4096) cases.push_back(AttentionCase(shape));
    }
  }
  with(8, 160, 1);
  with(32, 160, 1);
  with(1, 128, 128);
  with(1, 512, 512);
  with(1, 2048, 512);
  for (int64_t rows : {1, 8, 32, 128}) {
    for (DType dtype : {DType::kBF16, DType::kQ8_0, DType::kQ4_0}) {
      cases.push_back(GemmCase({dtype, rows, 576, 3072}));
      cases.push_back(GemmCase({dtype, rows, 1536, 576}));
    }
  }
  cases.push_back(LowRankCase(DType::kBF16, std::vector<int64_t>(32, 16), 576, 3072));
  for (DType dtype : {DType::kBF16, DType::kQ4_0}) {
    cases.push_back(ProductOfRowsCase({dtype, 16, 576, 1536}, 1536));
  }
  return cases;
}

}  // namespace polyad::test
