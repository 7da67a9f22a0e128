// LoRA as PEFT saves it, with all that its file may hold: y += s B (A x), s = alpha / r, or alpha /
// sqrt(r) with use_rslora; r and alpha may differ by module. A fused projection (GPT-2's c_attn) is
// one site; embeddings look up columns of A. Variants: DoRA, W' = c (W + s B A) row by row with c =
// m / |W + s B A|; QA-LoRA, one column of A for a run of inputs; BD-LoRA, one factor in blocks
// along its diagonal; KaSA, PiSSA and OLoRA, whose base lost a part of itself when training began;
// activated LoRA, which carries its tokens. Lowers to LowRank (+ OutputScale, Bias,
// EmbeddingLowRank). Source: zoo sections 4.1, 5.1 and 10; peft 0.21.2, tuners/lora.

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "engine/adapters/base_replacements.h"
#include "engine/adapters/families/family.h"
#include "engine/adapters/families/lora_config.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/row_squares.h"

namespace polyad {
namespace {

constexpr std::string_view kLinearLeaves[] = {"lora_A.weight", "lora_B.weight"};
constexpr std::string_view kEmbeddingLeaves[] = {"lora_embedding_A", "lora_embedding_B"};

struct Pair {
  TensorView a;  // [rank, in], or [rank, groups] in QA-LoRA
  TensorView b;  // [out, rank]
  int64_t rank = 0;
  double scale = 0;
};

Status CheckShapes(const ModuleTensors& module, const Pair& pair, int64_t in) {
  const std::string& path = module.path();
  if (pair.a.rows != pair.rank || pair.b.cols != pair.rank) {
    return InvalidArgument(
        "module %s: adapter_config.json says rank %d, got lora_A [%d, %d] and lora_B [%d, %d]",
        path, pair.rank, pair.a.rows, pair.a.cols, pair.b.rows, pair.b.cols);
  }
  if (pair.a.cols != in) {
    return FailedPrecondition(
        "tensor %s.lora_A: expected [%d, %d], got [%d, %d]: made for another base model", path,
        pair.rank, in, pair.a.rows, pair.a.cols);
  }
  if (pair.b.rows != module.out()) {
    return FailedPrecondition(
        "tensor %s.lora_B: expected [%d, %d], got [%d, %d]: made for another base model", path,
        module.out(), pair.rank, pair.b.rows, pair.b.cols);
  }
  return absl::OkStatus();
}

class LoraLowering {
 public:
  LoraLowering(AdapterSource& source, const LoweringContext& context, const LoraConfig& config)
      : source_(source), context_(context), config_(config) {}

  Status Linear(const ModuleTensors& module) {
    Pair pair;
    POLYAD_ASSIGN_OR_RETURN(pair.rank, CheckRank(module.path(), config_.ranks.For(module.path())));
    pair.scale = config_.ScaleOf(module.path(), static_cast<double>(pair.rank));
    POLYAD_RETURN_IF_ERROR(CheckTrainingOnly(module, pair.rank));
    POLYAD_ASSIGN_OR_RETURN(pair.a, source_.TakeMatrix(module.NameOf("lora_A.weight")));
    POLYAD_ASSIGN_OR_RETURN(pair.b, source_.TakeMatrix(module.NameOf("lora_B.weight")));
    if (config_.blocks > 1) return Blocks(module, pair);
    const bool pooled = config_.pools_inputs && pair.a.cols != module.in();
    if (pooled && module.in() % config_.pool_size != 0) {
      return FailedPrecondition("module %s: %d inputs are no groups of %d", module.path(),
                                module.in(), config_.pool_size);
    }
    POLYAD_RETURN_IF_ERROR(
        CheckShapes(module, pair, pooled ? module.in() / config_.pool_size : module.in()));
    if (config_.dora) return Dora(module, pair);
    if (config_.start != LoraStart::kUnchanged) return Changed(module, pair);
    if (pooled) {
      AddLowRank(program_, module.site(), Unpooled(pair.a, module.in()), ScaledB(pair));
    } else {
      program_.ops.push_back(
          {module.site(), LowRank{pair.a, pair.b, static_cast<float>(pair.scale)}});
    }
    return BiasOfB(module, pair.scale);
  }

  // A looked-up row gains s B A[:, token].
  Status Embedding(const ModuleTensors& module) {
    POLYAD_ASSIGN_OR_RETURN(const int64_t rank,
                            CheckRank(module.path(), config_.ranks.For(module.path())));
    EmbeddingLowRank op;
    POLYAD_ASSIGN_OR_RETURN(op.a, module.View("lora_embedding_A", rank, module.out()));
    POLYAD_ASSIGN_OR_RETURN(op.b, module.View("lora_embedding_B", module.in(), rank));
    op.scale = static_cast<float>(config_.ScaleOf(module.path(), static_cast<double>(rank)));
    if (config_.start != LoraStart::kUnchanged) {
      return Unimplemented("tensor %s: this initialisation is not served on embeddings",
                           module.NameOf("lora_embedding_A"));
    }
    if (config_.dora) {
      POLYAD_ASSIGN_OR_RETURN(const Matrix table, BaseWeight(context_, module.site()));
      Matrix own =
          Multiply(Transposed(Widened(op.a)), Transposed(Widened(op.b)));  // [vocab, hidden]
      for (size_t i = 0; i < own.values.size(); ++i)
        own.values[i] = table.values[i] + op.scale * own.values[i];
      POLYAD_ASSIGN_OR_RETURN(std::vector<float> columns,
                              Magnitudes(module, RowSquaresOf(Transposed(own))));
      op.column_scale = program_.arena.Keep(std::move(columns));
    }
    program_.embedding_ops.push_back(op);
    return absl::OkStatus();
  }

  AdapterProgram Finish() && { return std::move(program_); }

 private:
  // VeLoRA's projections of gradients and MonteCLoRA's distributions: read, checked and left.
  Status CheckTrainingOnly(const ModuleTensors& module, int64_t rank) {
    if (config_.velora) {
      POLYAD_RETURN_IF_ERROR(module.Floats("lora_velora_embed", {kAnySize}).status());
    }
    if (!config_.monteclora) return absl::OkStatus();
    const std::string sampler = "lora_monteclora_sampler.";
    POLYAD_ASSIGN_OR_RETURN(const FloatTensor weights,
                            module.Floats(sampler + "expert_weights", {kAnySize}));
    POLYAD_RETURN_IF_ERROR(
        module.Floats(sampler + "expert_weights_prior", {weights.Dim(0)}).status());
    POLYAD_RETURN_IF_ERROR(module.Floats(sampler + "gaussian_var_prior", {rank, rank}).status());
    return module.Floats(sampler + "std_prior", {rank}).status();
  }

  static Matrix ScaledB(const Pair& pair) {
    Matrix b = Widened(pair.b);
    Scale(b, pair.scale);
    return b;
  }

  static std::vector<double> RowSquaresOf(const Matrix& m) {
    std::vector<double> squares(static_cast<size_t>(m.rows));
    for (int64_t i = 0; i < m.rows; ++i) {
      squares[static_cast<size_t>(i)] = SumOfSquares(m.Row(i), m.cols);
    }
    return squares;
  }

  // A block-diagonal matrix of equal blocks, from the blocks [rows, cols / blocks] stacked.
  Matrix Diagonal(const TensorView& stacked) const {
    const Matrix blocks = Widened(stacked);
    const int64_t height = blocks.rows / config_.blocks;
    Matrix whole(blocks.rows, blocks.cols * config_.blocks);
    for (int64_t i = 0; i < whole.rows; ++i) {
      const int64_t first = i / height * blocks.cols;
      std::copy_n(blocks.Row(i), blocks.cols, whole.Row(i) + first);
    }
    return whole;
  }

  // BD-LoRA: a factor that is block-diagonal has its blocks stored one above another.
  Status Blocks(const ModuleTensors& module, Pair pair) {
    const auto cut = [this](const TensorView& factor, int64_t cols) {
      return factor.cols != cols && factor.cols * config_.blocks == cols &&
             factor.rows % config_.blocks == 0;
    };
    Matrix a = cut(pair.a, module.in()) ? Diagonal(pair.a) : Widened(pair.a);
    Matrix b = cut(pair.b, pair.rank) ? Diagonal(pair.b) : Widened(pair.b);
    pair.a = {a.values.data(), DType::kF32, a.rows, a.cols};
    pair.b = {b.values.data(), DType::kF32, b.rows, b.cols};
    POLYAD_RETURN_IF_ERROR(CheckShapes(module, pair, module.in()));
    Scale(b, pair.scale);
    AddLowRank(program_, module.site(), std::move(a), std::move(b));
    return BiasOfB(module, pair.scale);
  }

  // One column for each input: those of a group share it, and PEFT multiplies their mean by the
  // number of groups.
  static Matrix Unpooled(const TensorView& stored, int64_t in) {
    const Matrix grouped = Widened(stored);
    const int64_t size = in / grouped.cols;
    const float factor = static_cast<float>(grouped.cols) / static_cast<float>(size);
    Matrix a(grouped.rows, in);
    for (int64_t i = 0; i < a.rows; ++i) {
      for (int64_t j = 0; j < in; ++j) a.At(i, j) = factor * grouped.At(i, j / size);
    }
    return a;
  }

  Status BiasOfB(const ModuleTensors& module, double scale) {
    if (!config_.bias_of_b) return absl::OkStatus();
    POLYAD_ASSIGN_OR_RETURN(std::vector<float> bias,
                            module.TakeVector("lora_B.bias", module.out()));
    for (float& value : bias) value = static_cast<float>(static_cast<double>(value) * scale);
    AddBias(program_, module.site(), std::move(bias));
    return absl::OkStatus();
  }

  // magnitude / |row| of a changed weight, from the rows' squares.
  StatusOr<std::vector<float>> Magnitudes(const ModuleTensors& module,
                                          const std::vector<double>& squares) {
    const bool suffixed = module.Has("lora_magnitude_vector.weight");
    const std::string_view leaf =
        suffixed ? "lora_magnitude_vector.weight" : "lora_magnitude_vector";
    POLYAD_ASSIGN_OR_RETURN(std::vector<float> magnitudes,
                            module.TakeVector(leaf, static_cast<int64_t>(squares.size())));
    for (size_t i = 0; i < squares.size(); ++i) {
      if (squares[i] == 0)
        return InvalidArgument("tensor %s: row %d of the changed weight is zero",
                               module.NameOf(leaf), i);
      magnitudes[i] =
          static_cast<float>(static_cast<double>(magnitudes[i]) / std::sqrt(squares[i]));
    }
    return magnitudes;
  }

  // y = c (W x) + (c s B) A x + b: the bias is not scaled.
  Status Dora(const ModuleTensors& module, const Pair& pair) {
    const Matrix a = Widened(pair.a);
    Matrix b = ScaledB(pair);
    POLYAD_ASSIGN_OR_RETURN(const ChangedRows rows,
                            ChangedRowSquares(context_, module.site(), b, a));
    POLYAD_ASSIGN_OR_RETURN(std::vector<float> factors, Magnitudes(module, rows.sum));
    double square = 0;  // of c s B A
    for (size_t i = 0; i < factors.size(); ++i) {
      square += static_cast<double>(factors[i]) * static_cast<double>(factors[i]) * rows.change[i];
    }
    POLYAD_ASSIGN_OR_RETURN(std::vector<float> bias, BaseBias(context_, module.site()));
    const bool has_bias =
        std::any_of(bias.begin(), bias.end(), [](float value) { return value != 0; });
    for (size_t i = 0; i < bias.size(); ++i) bias[i] -= factors[i] * bias[i];
    ScaleRows(b, factors);
    ScaleOutput(program_, module.site(), std::move(factors));
    LowRank op;
    op.a = pair.a;  // as the file has it
    op.b = program_.arena.KeepMatrix(std::move(b.values), b.rows, b.cols);
    program_.ops.push_back({module.site(), op});
    program_.ops.back().norm = std::sqrt(square);
    if (has_bias) AddBias(program_, module.site(), std::move(bias));
    return absl::OkStatus();
  }

  // The pair, less the part of W it took the place of.
  Status Changed(const ModuleTensors& module, const Pair& pair) {
    Matrix a = Widened(pair.a);
    const int64_t side = std::min(module.in(), module.out());
    if (pair.rank > side || (config_.start != LoraStart::kOlora && side > kMaxEigenSide)) {
      return Unimplemented(
          "module %s: the part of [%d, %d] that training took away is too large to find again; "
          "convert the adapter",
          module.path(), module.out(), module.in());
    }
    POLYAD_ASSIGN_OR_RETURN(const Matrix weight, BaseWeight(context_, module.site()));
    FactorPair lost;
    if (config_.start == LoraStart::kOlora) {
      lost.left = OrthonormalColumns(weight, pair.rank);
      lost.right = Multiply(Transposed(lost.left), weight);
      Scale(lost.left, pair.scale);
    } else {
      lost = SingularPart(weight, pair.rank, /*largest=*/config_.start == LoraStart::kPissa);
    }
    if (config_.start == LoraStart::kKasa) {
      POLYAD_ASSIGN_OR_RETURN(const std::vector<float> diagonal,
                              module.TakeVector("lora_diag", pair.rank));
      ScaleRows(a, diagonal);
    }
    Scale(lost.left, -1);
    AddLowRank(program_, module.site(), std::move(a), ScaledB(pair));
    AddLowRank(program_, module.site(), std::move(lost.right), std::move(lost.left));
    return absl::OkStatus();
  }

  AdapterSource& source_;
  const LoweringContext& context_;
  const LoraConfig& config_;
  AdapterProgram program_;
};

}  // namespace

StatusOr<AdapterProgram> LowerLora(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(
      const LoraConfig config,
      ReadLoraConfig(source.config(), context.spec.vocab_size, source.base_digest()));
  if (config.on_parameters && context.spec.architecture == Architecture::kGpt2) {
    return Unimplemented(
        "adapter_config.json: target_parameters is not served on GPT-2, whose weights are stored "
        "the other way round");
  }
  LoraLowering lowering(source, context, config);
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> linears,
                          ModulesWith(source, context.spec, ModuleQuery{kLinearLeaves}));
  for (const ModuleTensors& module : linears) POLYAD_RETURN_IF_ERROR(lowering.Linear(module));
  POLYAD_ASSIGN_OR_RETURN(
      const std::vector<ModuleTensors> embeddings,
      ModulesWith(source, context.spec, ModuleQuery{kEmbeddingLeaves, true, false}));
  for (const ModuleTensors& module : embeddings) POLYAD_RETURN_IF_ERROR(lowering.Embedding(module));
  AdapterProgram program = std::move(lowering).Finish();
  if (config.trained_tokens != nullptr) {
    POLYAD_RETURN_IF_ERROR(LowerTrainedTokens(source, context, *config.trained_tokens, program));
  }
  program.invocation_tokens = config.invocation_tokens;
  return program;
}

}  // namespace polyad
