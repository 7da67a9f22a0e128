#include "engine/adapters/lowering_ops.h"

#include <utility>

namespace polyad {
namespace {

TensorView Keep(AdapterProgram& program, Matrix m) {
  return program.arena.KeepMatrix(std::move(m.values), m.rows, m.cols);
}

}  // namespace

void AddLowRank(AdapterProgram& program, SiteRef site, Matrix a, Matrix b) {
  if (a.rows == 0) return;
  LowRank op;
  op.a = Keep(program, std::move(a));
  op.b = Keep(program, std::move(b));
  program.ops.push_back({site, op});
}

void AddDense(AdapterProgram& program, SiteRef site, Matrix delta) {
  Dense op;
  op.delta = Keep(program, std::move(delta));
  program.ops.push_back({site, op});
}

void AddBias(AdapterProgram& program, SiteRef site, std::vector<float> values) {
  program.ops.push_back({site, Bias{program.arena.Keep(std::move(values))}});
}

void ScaleOutput(AdapterProgram& program, SiteRef site, std::vector<float> values) {
  program.ops.push_back(
      {site, OutputScale{program.arena.Keep(std::move(values))}, OpStage::kOutput});
}

StatusOr<Matrix> BaseWeight(const LoweringContext& context, SiteRef site) {
  POLYAD_ASSIGN_OR_RETURN(const BaseWeights* base, context.Base());
  const SiteShape shape = ShapeOf(context.spec, site.site);
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> values, base->Matrix(site));
  return Matrix(shape.out, shape.in, std::move(values));
}

StatusOr<std::vector<float>> BaseBias(const LoweringContext& context, SiteRef site) {
  POLYAD_ASSIGN_OR_RETURN(const BaseWeights* base, context.Base());
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> bias, base->Bias(site));
  if (bias.empty()) bias.resize(static_cast<size_t>(ShapeOf(context.spec, site.site).out));
  return bias;
}

}  // namespace polyad
