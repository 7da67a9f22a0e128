#pragma once

// How a lowering puts transforms, sparse changes and norms into its program (lowering_ops.h has the
// low-rank and dense ones): what it computed moves into the arena, an op views it. Loader thread.

#include <cstdint>
#include <string>
#include <vector>

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/dense_math.h"
#include "engine/adapters/lowering_context.h"
#include "engine/base/status.h"

namespace polyad {

// The base product reads values * x.
void ScaleInput(AdapterProgram& program, SiteRef site, std::vector<float> values);
// The base product reads x turned block by block, as rows: blocks is [in / size * size, size], the
// blocks one below another; order as in BlockRotation, empty: as they stand.
void RotateInput(AdapterProgram& program, SiteRef site, Matrix blocks, std::vector<int32_t> order);
// y = c * (W x1) + b: the base's product alone is scaled, its bias stays. Reads the base's bias.
Status ScaleProduct(AdapterProgram& program, const LoweringContext& context, SiteRef site,
                    std::vector<float> values);
// Takes the place of the base's bias, or creates one. Reads the base's bias.
Status ReplaceBias(AdapterProgram& program, const LoweringContext& context, SiteRef site,
                   std::vector<float> values);

// y = f * y + g * turn(y), as PairRotation.
struct PairTurn {
  std::vector<float> f;
  std::vector<float> g;
  int64_t group = 0;
};
void TurnOutput(AdapterProgram& program, SiteRef site, PairTurn turn);

// Entries of a sparse change in any order; those of one place add up. Nothing where there are none.
struct SparseEntry {
  int32_t row = 0;
  int32_t col = 0;
  float value = 0;
};
// Of indices that were checked against the site's shape.
inline SparseEntry EntryAt(int64_t row, int64_t col, float value) {
  return {static_cast<int32_t>(row), static_cast<int32_t>(col), value};
}
Status AddSparse(AdapterProgram& program, const LoweringContext& context, SiteRef site,
                 std::vector<SparseEntry> entries);
// y += (c kron d) x
void AddKronecker(AdapterProgram& program, SiteRef site, Matrix c, Matrix d);

// The norm a module path names ("model.layers.0.input_layernorm"); NOT_FOUND where it names none.
struct NormRef {
  int64_t layer = -1;
  NormSite site = NormSite::kFinal;
};
StatusOr<NormRef> ResolveNormPath(const ModelSpec& spec, const std::string& module_path);
int64_t NormWidth(const ModelSpec& spec, NormSite site);
// INVALID_ARGUMENT where an RMS norm is given a bias, FAILED_PRECONDITION where a size is not the
// base's or it has no such norm; `name` is for messages.
Status ReplaceNorm(AdapterProgram& program, const ModelSpec& spec, NormReplacement norm,
                   const std::string& name);

}  // namespace polyad
