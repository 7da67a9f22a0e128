// VeRA and PVeRA's mean path: y += b * B (d * A x) with one pair A, B for every site, cut to the
// site's size, and vectors d [rank], b [out] of the site. PVeRA's A and d hold means first and
// variances after; only the means act. Lowers to LowRank with inner and outer vectors and shared
// factors. Source: zoo section 5.1; peft 0.21.2, tuners/vera and tuners/pvera.

#include <map>
#include <span>
#include <string>
#include <string_view>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {
    "r",         "projection_prng_key", "save_projection", "vera_dropout",
    "d_initial", "init_weights",        "pvera_dropout",   "generator_seed"};

struct Projections {
  Matrix a;  // [rows, widest input]
  Matrix b;  // [widest output, rank]
};

// One copy of A for each input width and one of B for all sites, so that what is packed is shared
// as well.
class SharedViews {
 public:
  SharedViews(const Projections& shared, int64_t rank, ProgramArena& arena)
      : shared_(shared), rank_(rank), arena_(arena), up_(arena.Keep(shared.b.values)) {}

  TensorView Down(int64_t in) {
    const auto found = down_.find(in);
    if (found != down_.end()) return found->second;
    Matrix cut = Rows(Columns(shared_.a, 0, in), 0, rank_);
    return down_[in] = arena_.KeepMatrix(std::move(cut.values), rank_, in);
  }
  TensorView Up(int64_t out) const { return {up_.data(), DType::kF32, out, rank_}; }

 private:
  const Projections& shared_;
  int64_t rank_;
  ProgramArena& arena_;
  std::span<const float> up_;
  std::map<int64_t, TensorView> down_;  // by width
};

StatusOr<Matrix> TakeShared(AdapterSource& source, const std::string& name) {
  POLYAD_ASSIGN_OR_RETURN(const std::string found, SharedTensorName(source, name));
  POLYAD_ASSIGN_OR_RETURN(FloatTensor tensor, TakeFloats(source, found, {kAnySize, kAnySize}));
  return std::move(tensor).AsMatrix();
}

StatusOr<Projections> TakeProjections(AdapterSource& source, const std::string& prefix,
                                      int64_t parts) {
  Projections shared;
  POLYAD_ASSIGN_OR_RETURN(shared.a, TakeShared(source, "base_model." + prefix + "A"));
  POLYAD_ASSIGN_OR_RETURN(shared.b, TakeShared(source, "base_model." + prefix + "B"));
  if (shared.a.rows != parts * shared.b.cols || shared.b.cols == 0) {
    return InvalidArgument(
        "tensor base_model.%sB: expected %d columns for the %d rows of A, got %d", prefix,
        shared.a.rows / parts, shared.a.rows, shared.b.cols);
  }
  return shared;
}

}  // namespace

StatusOr<AdapterProgram> LowerVera(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  POLYAD_ASSIGN_OR_RETURN(const std::string type, config.String("peft_type"));
  const bool probabilistic = type == "PVERA";
  const std::string prefix = probabilistic ? "pvera_" : "vera_";
  const int64_t parts = probabilistic ? 2 : 1;  // means, then variances
  POLYAD_ASSIGN_OR_RETURN(const Projections shared, TakeProjections(source, prefix, parts));
  const int64_t rank = shared.b.cols;
  POLYAD_ASSIGN_OR_RETURN(const int64_t stated, config.IntOr("r", 256, 1, kMaxRank));
  if (stated != rank)
    return InvalidArgument("adapter_config.json: r = %d, but the projections have %d", stated,
                           rank);
  AdapterProgram program;
  SharedViews views(shared, rank, program.arena);
  const std::string leaf_d = prefix + "lambda_d";
  const std::string leaf_b = prefix + "lambda_b";
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ModuleTensors> modules,
                          ModulesWith(source, context.spec, {leaf_d, leaf_b}));
  for (const ModuleTensors& module : modules) {
    POLYAD_ASSIGN_OR_RETURN(std::vector<float> d, module.TakeVector(leaf_d, parts * rank));
    POLYAD_ASSIGN_OR_RETURN(std::vector<float> b, module.TakeVector(leaf_b, module.out()));
    if (shared.a.cols < module.in() || shared.b.rows < module.out()) {
      return FailedPrecondition(
          "module %s: needs projections of %d inputs and %d outputs, got %d and %d", module.path(),
          module.in(), module.out(), shared.a.cols, shared.b.rows);
    }
    d.resize(static_cast<size_t>(rank));
    LowRank op;
    op.a = views.Down(module.in());
    op.b = views.Up(module.out());
    op.inner = program.arena.Keep(std::move(d));
    op.outer = program.arena.Keep(std::move(b));
    program.ops.push_back({module.site(), op});
  }
  return program;
}

}  // namespace polyad
