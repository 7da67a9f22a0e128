// VB-LoRA: both factors are pieced together from one bank of vectors, each piece a softmax mix of a
// few of them. Lowers to LowRank without a scale. Source: zoo section 5.1; peft 0.21.2,
// tuners/vblora.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <string_view>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {"r",
                                      "num_vectors",
                                      "vector_length",
                                      "topk",
                                      "save_only_topk_weights",
                                      "vblora_dropout",
                                      "init_vector_bank_bound",
                                      "init_logits_std"};

struct Mix {
  const Matrix& bank;  // [vectors, length]
  int64_t topk = 0;
};

// The pieces of one factor, each a row [length]: softmax over the topk largest logits of the piece.
StatusOr<Matrix> PiecesFromLogits(const ModuleTensors& module, const std::string& leaf,
                                  const Mix& mix, int64_t first, int64_t second) {
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor logits,
                          module.Floats(leaf, {first, second, mix.bank.rows}));
  Matrix pieces(first * second, mix.bank.cols);
  std::vector<int64_t> order(static_cast<size_t>(mix.bank.rows));
  for (int64_t piece = 0; piece < pieces.rows; ++piece) {
    const float* row = logits.values.data() + piece * mix.bank.rows;
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(
        order.begin(), order.begin() + mix.topk, order.end(),
        [row](int64_t a, int64_t b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
    double sum = 0;
    for (int64_t k = 0; k < mix.topk; ++k)
      sum += std::exp(static_cast<double>(row[order[static_cast<size_t>(k)]]) -
                      static_cast<double>(row[order[0]]));
    for (int64_t k = 0; k < mix.topk; ++k) {
      const int64_t vector = order[static_cast<size_t>(k)];
      const double weight =
          std::exp(static_cast<double>(row[vector]) - static_cast<double>(row[order[0]])) / sum;
      for (int64_t j = 0; j < pieces.cols; ++j)
        pieces.At(piece, j) +=
            static_cast<float>(weight * static_cast<double>(mix.bank.At(vector, j)));
    }
  }
  return pieces;
}

// The same where the file keeps only the chosen vectors and all their weights but the last.
StatusOr<Matrix> PiecesFromChoice(AdapterSource& source, const ModuleTensors& module,
                                  const std::string& leaf, const Mix& mix, int64_t first,
                                  int64_t second) {
  POLYAD_ASSIGN_OR_RETURN(const IndexTensor chosen,
                          TakeIndices(source, module.NameOf(leaf + "_topk_indices"), mix.bank.rows,
                                      {first, second, mix.topk}));
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor weights,
                          module.Floats(leaf + "_topk_weights", {first, second, mix.topk - 1}));
  Matrix pieces(first * second, mix.bank.cols);
  for (int64_t piece = 0; piece < pieces.rows; ++piece) {
    float rest = 1;
    for (int64_t k = 0; k < mix.topk; ++k) {
      const bool last = k + 1 == mix.topk;
      const float weight =
          last ? rest : weights.values[static_cast<size_t>(piece * (mix.topk - 1) + k)];
      rest -= weight;
      const float* vector = mix.bank.Row(chosen.values[static_cast<size_t>(piece * mix.topk + k)]);
      for (int64_t j = 0; j < pieces.cols; ++j) pieces.At(piece, j) += weight * vector[j];
    }
  }
  return pieces;
}

StatusOr<Matrix> Pieces(AdapterSource& source, const ModuleTensors& module, const std::string& leaf,
                        const Mix& mix, int64_t first, int64_t second) {
  if (module.Has(leaf)) return PiecesFromLogits(module, leaf, mix, first, second);
  return PiecesFromChoice(source, module, leaf, mix, first, second);
}

}  // namespace

StatusOr<AdapterProgram> LowerVbLora(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(const int64_t rank, config.IntOr("r", 4, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(const int64_t length, config.IntOr("vector_length", 256, 1, 1 << 20));
  POLYAD_ASSIGN_OR_RETURN(const int64_t count, config.IntOr("num_vectors", 256, 1, 1 << 20));
  POLYAD_ASSIGN_OR_RETURN(const int64_t topk, config.IntOr("topk", 2, 1, count));
  POLYAD_ASSIGN_OR_RETURN(const std::string name,
                          SharedTensorName(source, "base_model.vblora_vector_bank"));
  POLYAD_ASSIGN_OR_RETURN(FloatTensor tensor, TakeFloats(source, name, {count, length}));
  const Matrix bank = std::move(tensor).AsMatrix();
  AdapterProgram program;
  POLYAD_ASSIGN_OR_RETURN(
      const std::vector<ModuleTensors> modules,
      ModulesWith(source, context.spec,
                  {"vblora_logits_A", "vblora_logits_B", "vblora_logits_A_topk_indices",
                   "vblora_logits_B_topk_indices"}));
  for (const ModuleTensors& module : modules) {
    if (module.in() % length != 0 || module.out() % length != 0) {
      return FailedPrecondition("module %s: [%d, %d] is not made of vectors of %d", module.path(),
                                module.out(), module.in(), length);
    }
    const Mix mix{bank, topk};
    POLYAD_ASSIGN_OR_RETURN(
        Matrix a, Pieces(source, module, "vblora_logits_A", mix, rank, module.in() / length));
    a = Matrix(rank, module.in(), std::move(a.values));
    POLYAD_ASSIGN_OR_RETURN(const Matrix pieces, Pieces(source, module, "vblora_logits_B", mix,
                                                        module.out() / length, rank));
    Matrix b(module.out(), rank);
    for (int64_t out = 0; out < module.out(); ++out) {
      for (int64_t k = 0; k < rank; ++k)
        b.At(out, k) = pieces.At(out / length * rank + k, out % length);
    }
    AddLowRank(program, module.site(), std::move(a), std::move(b));
  }
  return program;
}

}  // namespace polyad
