// LILY: y += scaling (sum over e of p_e B_e)' A x, with p the mean over a segment's rows of
// softmax(router A x). Layers share A by strides and all of a target's share the B, of which a file
// has a copy for each module. Lowers to a Mixture over a segment, of LowRank experts. Source: zoo
// sections 7 and 10; peft 0.21.2, tuners/lily. Differs from a batch in PEFT, whose mean is over all
// of its texts.

#include <algorithm>
#include <deque>
#include <string_view>
#include <utility>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {"r", "stride_A", "num_B", "scaling", "init_weights"};

struct Settings {
  int64_t rank = 0;
  int64_t num_experts = 0;
  double scaling = 1.0;
};

// Matrices with equal numbers are kept once, so that their packed forms are too.
class SharedMatrices {
 public:
  explicit SharedMatrices(ProgramArena& arena) : arena_(arena) {}

  TensorView Keep(Matrix matrix) {
    for (const TensorView& kept : kept_) {
      const auto* values = static_cast<const float*>(kept.data);
      if (kept.rows == matrix.rows && kept.cols == matrix.cols &&
          std::equal(matrix.values.begin(), matrix.values.end(), values)) {
        return kept;
      }
    }
    const int64_t rows = matrix.rows;
    const int64_t cols = matrix.cols;
    return kept_.emplace_back(arena_.KeepMatrix(std::move(matrix.values), rows, cols));
  }

 private:
  ProgramArena& arena_;
  std::deque<TensorView> kept_;
};

StatusOr<Settings> ReadSettings(const OrderedJsonFields& config) {
  Settings settings;
  POLYAD_ASSIGN_OR_RETURN(settings.rank, config.IntOr("r", 32, 1, kMaxRank));
  POLYAD_ASSIGN_OR_RETURN(settings.num_experts, config.IntOr("num_B", 2, 2, kMaxExperts));
  POLYAD_ASSIGN_OR_RETURN(settings.scaling, config.NumberOr("scaling", 1.0, -1e9, 1e9));
  POLYAD_RETURN_IF_ERROR(config.IntOr("stride_A", 1, 1, 1 << 20).status());
  return settings;
}

Status LowerModule(const ModuleTensors& module, const Settings& settings, SharedMatrices& shared,
                   AdapterProgram& program) {
  if (module.site().site == Site::kHead) {
    return Unimplemented(
        "module %s: a router over the prompt is not served at the head, which "
        "reads the prompt's last row alone",
        module.path());
  }
  const int64_t rank = settings.rank;
  const int64_t num_experts = settings.num_experts;
  POLYAD_ASSIGN_OR_RETURN(Matrix a, module.Take("lily_A.weight", rank, module.in()));
  POLYAD_ASSIGN_OR_RETURN(Matrix router, module.Take("lily_router.weight", num_experts, rank));
  POLYAD_ASSIGN_OR_RETURN(const Matrix b,
                          module.Take("lily_B.weight", num_experts * rank, module.out()));
  const TensorView down = shared.Keep(std::move(a));
  Mixture mixture;
  mixture.site = module.site();
  mixture.rule.num_experts = num_experts;
  mixture.rule.top_k = num_experts;
  mixture.rule.over_segment = true;
  LowRank scores;
  scores.a = down;
  scores.b = shared.Keep(std::move(router));
  mixture.scores = scores;
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    const auto begin = b.values.begin() + expert * rank * module.out();
    Matrix up = Transposed(Matrix(rank, module.out(), {begin, begin + rank * module.out()}));
    Scale(up, settings.scaling);
    LowRank op;
    op.a = down;
    op.b = shared.Keep(std::move(up));
    SiteOp term{module.site(), op};
    term.mixture = static_cast<int64_t>(program.mixtures.size());
    term.expert = expert;
    program.ops.push_back(std::move(term));
  }
  program.mixtures.push_back(std::move(mixture));
  return absl::OkStatus();
}

}  // namespace

StatusOr<AdapterProgram> LowerLily(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(const Settings settings, ReadSettings(config));
  POLYAD_ASSIGN_OR_RETURN(
      const std::vector<ModuleTensors> modules,
      ModulesWith(source, context.spec, {"lily_A.weight", "lily_B.weight", "lily_router.weight"}));
  AdapterProgram program;
  SharedMatrices shared(program.arena);
  for (const ModuleTensors& module : modules) {
    POLYAD_RETURN_IF_ERROR(LowerModule(module, settings, shared, program));
  }
  program.reads_whole_prompt = true;
  return program;
}

}  // namespace polyad
