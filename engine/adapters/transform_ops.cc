#include "engine/adapters/transform_ops.h"

#include <algorithm>
#include <limits>
#include <span>
#include <string_view>
#include <utility>

#include "engine/adapters/lowering_ops.h"

namespace polyad {
namespace {

struct NormName {
  std::string_view name;
  NormSite site;
};
constexpr NormName kLlamaNorms[] = {{"input_layernorm", NormSite::kAttention},
                                    {"post_attention_layernorm", NormSite::kMlp},
                                    {"self_attn.q_norm", NormSite::kQueryHead},
                                    {"self_attn.k_norm", NormSite::kKeyHead}};
constexpr NormName kGpt2Norms[] = {{"ln_1", NormSite::kAttention}, {"ln_2", NormSite::kMlp}};

bool HasNorm(const ModelSpec& spec, NormSite site) {
  const bool is_head = site == NormSite::kQueryHead || site == NormSite::kKeyHead;
  return !is_head || spec.qk_norm;
}

}  // namespace

void ScaleInput(AdapterProgram& program, SiteRef site, std::vector<float> values) {
  program.ops.push_back({site, InputScale{program.arena.Keep(std::move(values))}, OpStage::kInput});
}

void RotateInput(AdapterProgram& program, SiteRef site, Matrix blocks, std::vector<int32_t> order) {
  BlockRotation op;
  op.size = blocks.cols;
  op.in = blocks.rows;
  op.blocks = program.arena.Keep(std::move(blocks.values));
  if (!order.empty()) op.order = program.arena.Keep(std::move(order));
  program.ops.push_back({site, op, OpStage::kInput});
}

Status ScaleProduct(AdapterProgram& program, const LoweringContext& context, SiteRef site,
                    std::vector<float> values) {
  POLYAD_ASSIGN_OR_RETURN(const BaseWeights* base, context.Base());
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> bias, base->Bias(site));
  for (size_t i = 0; i < bias.size(); ++i) bias[i] -= values[i] * bias[i];
  ScaleOutput(program, site, std::move(values));
  if (!bias.empty()) AddBias(program, site, std::move(bias));
  return absl::OkStatus();
}

Status ReplaceBias(AdapterProgram& program, const LoweringContext& context, SiteRef site,
                   std::vector<float> values) {
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> bias, BaseBias(context, site));
  for (size_t i = 0; i < bias.size(); ++i) values[i] -= bias[i];
  AddBias(program, site, std::move(values));
  return absl::OkStatus();
}

void TurnOutput(AdapterProgram& program, SiteRef site, PairTurn turn) {
  PairRotation op;
  op.f = program.arena.Keep(std::move(turn.f));
  op.g = program.arena.Keep(std::move(turn.g));
  op.group = turn.group;
  program.ops.push_back({site, op, OpStage::kOutput});
}

Status AddSparse(AdapterProgram& program, const LoweringContext& context, SiteRef site,
                 std::vector<SparseEntry> entries) {
  if (entries.empty()) return absl::OkStatus();
  if (entries.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return ResourceExhausted("module %s: %d entries", ModulePath(context.spec, site),
                             entries.size());
  }
  const auto before = [](const SparseEntry& a, const SparseEntry& b) {
    return a.row != b.row ? a.row < b.row : a.col < b.col;
  };
  if (!std::is_sorted(entries.begin(), entries.end(), before)) {
    std::stable_sort(entries.begin(), entries.end(), before);
  }
  const SiteShape shape = ShapeOf(context.spec, site.site);
  std::vector<int32_t> row_begin(static_cast<size_t>(shape.out) + 1, 0);
  std::vector<int32_t> columns;
  std::vector<float> values;
  columns.resize(entries.size());
  values.resize(entries.size());
  size_t count = 0;
  for (const SparseEntry& entry : entries) {
    const auto row = static_cast<size_t>(entry.row);
    const bool repeats = row_begin[row + 1] > 0 && columns[count - 1] == entry.col;
    if (repeats) {
      values[count - 1] += entry.value;
      continue;
    }
    columns[count] = entry.col;
    values[count] = entry.value;
    ++count;
    ++row_begin[row + 1];
  }
  columns.resize(count);
  values.resize(count);
  for (size_t row = 1; row < row_begin.size(); ++row) row_begin[row] += row_begin[row - 1];
  Sparse op;
  op.row_begin = program.arena.Keep(std::move(row_begin));
  op.columns = program.arena.Keep(std::move(columns));
  op.values = program.arena.Keep(std::move(values));
  op.in = shape.in;
  program.ops.push_back({site, op});
  return absl::OkStatus();
}

void AddKronecker(AdapterProgram& program, SiteRef site, Matrix c, Matrix d) {
  Kronecker op;
  op.c = program.arena.KeepMatrix(std::move(c.values), c.rows, c.cols);
  op.d = program.arena.KeepMatrix(std::move(d.values), d.rows, d.cols);
  program.ops.push_back({site, op});
}

StatusOr<NormRef> ResolveNormPath(const ModelSpec& spec, const std::string& module_path) {
  const bool is_gpt2 = spec.architecture == Architecture::kGpt2;
  if (module_path == (is_gpt2 ? "transformer.ln_f" : "model.norm")) {
    return NormRef{-1, NormSite::kFinal};
  }
  const std::span<const NormName> names =
      is_gpt2 ? std::span<const NormName>(kGpt2Norms) : std::span<const NormName>(kLlamaNorms);
  const std::string prefix = is_gpt2 ? "transformer.h." : "model.layers.";
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    const std::string stem = prefix + std::to_string(layer) + ".";
    if (!module_path.starts_with(stem)) continue;
    for (const NormName& norm : names) {
      const bool matches = std::string_view(module_path).substr(stem.size()) == norm.name;
      if (matches && HasNorm(spec, norm.site)) return NormRef{layer, norm.site};
    }
  }
  return NotFound("module %s: the base model has no norm of this name", module_path);
}

int64_t NormWidth(const ModelSpec& spec, NormSite site) {
  const bool is_head = site == NormSite::kQueryHead || site == NormSite::kKeyHead;
  return is_head ? spec.head_dim : spec.hidden_size;
}

Status ReplaceNorm(AdapterProgram& program, const ModelSpec& spec, NormReplacement norm,
                   const std::string& name) {
  const bool layer_fits = norm.site == NormSite::kFinal
                              ? norm.layer == -1
                              : norm.layer >= 0 && norm.layer < spec.num_layers;
  if (!layer_fits || !HasNorm(spec, norm.site)) {
    return FailedPrecondition("tensor %s: the base model has no such norm", name);
  }
  const auto width = static_cast<size_t>(NormWidth(spec, norm.site));
  if (norm.weight.size() != width || (!norm.bias.empty() && norm.bias.size() != width)) {
    return FailedPrecondition("tensor %s: expected %d numbers, got %d and a bias of %d", name,
                              width, norm.weight.size(), norm.bias.size());
  }
  if (!norm.bias.empty() && spec.norm == NormKind::kRms) {
    return InvalidArgument("tensor %s: an RMS norm has no bias", name);
  }
  if (norm.bias.empty() && spec.norm == NormKind::kLayer) {
    return InvalidArgument("tensor %s: expected the norm's bias beside its weight", name);
  }
  program.norms.push_back(std::move(norm));
  return absl::OkStatus();
}

}  // namespace polyad
