#include "tests/kernels/cuda/mutant_work.h"

#include <cmath>
#include <memory>

#include "kernels/api/check.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/cuda/draw_work.h"
#include "tests/kernels/cuda/weight_products.h"
#include "tests/kernels/op_cases.h"
#include "tests/kernels/op_inputs.h"
#include "tests/kernels/stored_weight.h"

namespace polyad::test {
namespace {

constexpr std::string_view kExact = "_exact";

// Rows [0, rows) are an adapter's of rank 150, another row is nobody's.
Outcome LowRankOfRows(Backend& backend, int64_t rows) {
  constexpr int64_t kIn = 200;
  constexpr int64_t kOut = 70;
  constexpr int64_t kRank = 150;
  const StoredWeight a = MakeWeight(DType::kBF16, kRank, kIn, 1);
  const StoredWeight b = MakeWeight(DType::kBF16, kOut, kRank, 2);
  PackShare share;
  const std::unique_ptr<PackedDelta> op =
      *backend.PackDelta(LowRank{a.view(), b.view(), 1.0f}, share);
  ActivationBuffer x(backend, rows + 1, kIn, RandomValues((rows + 1) * kIn, 3));
  FloatBuffer y(rows + 1, kOut + 2);
  const DeltaSegment segments[] = {{0, rows, 1, op.get()}};
  backend.Apply(segments, x.rows(), y.view());
  // The middle's rounding is half a unit of it, independent from rank to rank; four deviations.
  const double unit = backend.activation_dtype() == DType::kBF16 ? kEps16 : 16 * kEps32;
  const double size = NormOf(a.values.data(), kIn) * NormOf(b.values.data(), kRank);
  Outcome outcome;
  outcome.values = y.Values();
  outcome.tolerance.assign(outcome.values.size(), 4 * unit * size);
  return outcome;
}

Outcome OutcomeOf(const OpCase& op, Backend& backend) {
  const std::unique_ptr<OpRun> run = op.make(backend);
  run->Run();
  return {run->Output(), run->Tolerance(), run->NormTolerance()};
}

// A prefill of 20 tokens beside a decoding sequence.
Outcome Attend(Backend& backend, int64_t context, KvFormat format = KvFormat::kAuto) {
  return OutcomeOf(AttentionCase({.num_heads = 4,
                                  .num_kv_heads = 2,
                                  .head_dim = IsCoded(format) ? 80 : 20,
                                  .contexts = {{context, 20}, {context, 1}},
                                  .rotary_dim = 16,
                                  .window = context > 50 ? 0 : 12,
                                  .head_norms = true,
                                  .format = format,
                                  .num_layers = 1}),
                   backend);
}

Outcome Product(Backend& backend, const StoredWeight& weight, int64_t rows) {
  WeightProduct product = ProductOf(backend, weight, rows);
  return {std::move(product.values), std::move(product.tolerance)};
}

// Tokens, the sampler's where the backend leaves a draw.
Outcome TokensDrawn(Backend& backend, const std::vector<DrawTrial>& trials) {
  constexpr int kDraws = 6;
  const auto drawn = TokensOf(backend, trials, kDraws);
  const auto expected = TokensOfSampler(trials, kDraws);
  Outcome outcome;
  for (size_t i = 0; i < drawn.size(); ++i) {
    for (size_t j = 0; j < drawn[i].size(); ++j) {
      outcome.values.push_back(drawn[i][j] < 0 ? expected[i][j] : drawn[i][j]);
    }
  }
  outcome.tolerance.assign(outcome.values.size(), 0.0);
  return outcome;
}

// From all ids: of two blocks of weights and 7 ids.
Outcome DrawAll(Backend& backend) {
  return TokensDrawn(backend, {{RandomLogits(4103, 1, 1.0f), {.temperature = 2.0f}},
                               {std::vector<float>(4103, 0.5f), {.temperature = 1.0f}}});
}

// From the likeliest, with ties, of which more or fewer than are sorted may be chosen.
Outcome DrawLikely(Backend& backend) {
  constexpr int64_t kCols = 1501;
  std::vector<float> odd(kCols, 0.0f);
  odd[77] = 2.0f;
  return TokensDrawn(
      backend, {{RandomLogits(kCols, 2, 0.25f), {.temperature = 2.0f, .top_k = 30, .top_p = 0.9f}},
                {RandomLogits(kCols, 3), {.temperature = 4.0f, .top_k = 1000}},
                {std::move(odd), {.temperature = 1.0f, .min_p = 0.3f}}});
}

Outcome RunCase(std::string_view name, Backend& backend) {
  for (const OpCase& op : ConformanceCases()) {
    if (op.name == name) return OutcomeOf(op, backend);
  }
  KERNEL_CHECK(false, "a mutant's work is a conformance case");
  return {};
}

}  // namespace

ComputeMode ModeOf(std::string_view work) {
  return work.ends_with(kExact) ? ComputeMode::kF32 : ComputeMode::kAuto;
}

Outcome DoWork(std::string_view work, Backend& backend) {
  if (work.ends_with(kExact)) work.remove_suffix(kExact.size());
  if (work == "low_rank_few" || work == "low_rank") return LowRankOfRows(backend, 5);
  if (work == "low_rank_many") return LowRankOfRows(backend, 70);
  if (work == "draw_all") return DrawAll(backend);
  if (work == "draw_likely") return DrawLikely(backend);
  if (work == "attend_short") return Attend(backend, 37);
  if (work == "attend_long") return Attend(backend, 530);
  if (work == "attend_int8") return Attend(backend, 37, KvFormat::kInt8);
  if (work == "attend_int4") return Attend(backend, 37, KvFormat::kInt4);
  constexpr std::string_view kProduct = "product_";
  if (work == "product_many") return Product(backend, MakeWeight(DType::kBF16, 70, 200, 1), 70);
  if (work.starts_with(kProduct) && !work.starts_with("product_of_rows")) {
    return Product(backend, MakeCoded(work.substr(kProduct.size()), 70, 192), 3);
  }
  return RunCase(work, backend);
}

}  // namespace polyad::test
