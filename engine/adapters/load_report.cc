#include "engine/adapters/load_report.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>
#include <variant>

#include "engine/adapters/delta_norms.h"
#include "engine/base/check.h"
#include "kernels/api/delta_check.h"

namespace polyad {
namespace {

std::string_view NameOf(OpStage stage) {
  switch (stage) {
    case OpStage::kInput:
      return "input";
    case OpStage::kOutput:
      return "output";
    case OpStage::kDelta:
      return "delta";
    case OpStage::kAfter:
      return "after";
  }
  return "?";
}

std::string_view NameOf(NormSite site) {
  switch (site) {
    case NormSite::kAttention:
      return "attention";
    case NormSite::kMlp:
      return "mlp";
    case NormSite::kFinal:
      return "final";
    case NormSite::kQueryHead:
      return "q_norm";
    case NormSite::kKeyHead:
      return "k_norm";
  }
  return "?";
}

int64_t RankOf(const DeltaOp& op) {
  if (const auto* low_rank = std::get_if<LowRank>(&op)) return low_rank->a.rows;
  if (const auto* low_rank = std::get_if<EmbeddingLowRank>(&op)) return low_rank->a.rows;
  if (const auto* bottleneck = std::get_if<Bottleneck>(&op)) return bottleneck->down.rows;
  return 0;
}

class OpTally {
 public:
  void Add(std::string_view op, std::string_view stage, std::string target, int64_t rank,
           const DeltaCost& cost) {
    const auto same = [&](const OpReport& row) {
      return row.op == op && row.stage == stage && row.target == target;
    };
    auto row = std::find_if(rows_.begin(), rows_.end(), same);
    if (row == rows_.end()) {
      OpReport fresh;
      fresh.op = op;
      fresh.stage = stage;
      fresh.target = std::move(target);
      row = rows_.insert(rows_.end(), std::move(fresh));
    }
    ++row->count;
    row->rank = std::max(row->rank, rank);
    row->bytes += cost.bytes;
    row->flops_per_token += cost.flops_per_token;
  }
  std::vector<OpReport> Take() { return std::move(rows_); }

 private:
  std::vector<OpReport> rows_;  // a program has few kinds of places
};

std::string ModuleOf(const ModelSpec& spec, SiteRef site) {
  const std::string path = ModulePath(spec, site);
  return path.substr(path.rfind('.') + 1);
}

// What reads a whole prompt is E4; hooks and bottlenecks are run-time (E3); what read the base's
// weights is E2; the rest is algebra on the adapter's own tensors (E1), which includes what runs as
// stored.
std::string_view ExactnessOf(const AdapterProgram& program) {
  bool at_run_time = !program.hooks.empty() || !program.stream_ops.empty() ||
                     !program.couplings.empty() || !program.invocation_tokens.empty() ||
                     !program.gated_prefixes.empty() || !program.mixtures.empty() ||
                     program.scaling_pass.has_value() || !program.routers.empty();
  for (const SiteOp& op : program.ops) at_run_time |= std::holds_alternative<Bottleneck>(op.op);
  if (program.reads_whole_prompt) return "E4";
  if (at_run_time) return "E3";
  return program.read_base ? "E2" : "E1";
}

std::string PlaceOf(SubLayer sub_layer) {
  return sub_layer == SubLayer::kMlp ? "mlp" : "attention";
}

std::string_view KindOf(const SubLayerHook& hook) {
  if (hook.fusion) return "Fusion";
  return hook.rows.kind != HookRows::Kind::kAll ? "Intervention" : NameOf(hook.op);
}

void AddOps(const AdapterProgram& program, const ModelSpec& spec, const ProgramCosts& costs,
            OpTally& tally) {
  size_t next = 0;
  for (const Mixture& mixture : program.mixtures) {
    tally.Add("Mixture", "delta", ModuleOf(spec, mixture.site), mixture.rule.num_experts,
              costs.mixtures[next++]);
  }
  next = 0;
  for (const SiteOp& op : program.ops) {
    tally.Add(NameOf(op.op), NameOf(op.stage), ModuleOf(spec, op.site), RankOf(op.op),
              costs.ops[next++]);
  }
  const std::string embedding = ModuleOf(spec, {-1, Site::kEmbed});
  next = 0;
  for (const DeltaOp& op : program.embedding_ops) {
    tally.Add(NameOf(op), "embedding", embedding, RankOf(op), costs.embedding_ops[next++]);
  }
  next = 0;
  for (const Bottleneck& op : program.stream_ops) {
    tally.Add("Bottleneck", "embedding", "embedding", op.down.rows, costs.stream_ops[next++]);
  }
  next = 0;
  for (const EmbeddingCoupling& coupling : program.couplings) {
    tally.Add("Coupling", "embedding", embedding, coupling.first.down.rows,
              costs.couplings[next++]);
  }
}

void AddLayerParts(const AdapterProgram& program, const ProgramCosts& costs, OpTally& tally) {
  size_t next = 0;
  for (const TokenRouter& router : program.routers) {
    tally.Add("TokenRouter", "sub_layer", PlaceOf(router.sub_layer), 0, costs.routers[next++]);
  }
  next = 0;
  for (const SubLayerHook& hook : program.hooks) {
    tally.Add(KindOf(hook), "sub_layer", PlaceOf(hook.sub_layer), RankOf(hook.op),
              costs.hooks[next++]);
  }
  next = 0;
  for (const GatedPrefixTensors& prefix : program.gated_prefixes) {
    tally.Add("GatedPrefix", "attention", "attention", prefix.num_keys,
              costs.gated_prefixes[next++]);
  }
  next = 0;
  for (const NormReplacement& norm : program.norms) {
    tally.Add("Norm", "norm", std::string(NameOf(norm.site)), 0, costs.norms[next++]);
  }
}

std::vector<OpReport> OpsOf(const AdapterProgram& program, const ModelSpec& spec,
                            const ProgramCosts& costs) {
  OpTally tally;
  AddOps(program, spec, costs, tally);
  AddLayerParts(program, costs, tally);
  if (program.soft_prompt) {
    const SoftPromptTensors& prompt = *program.soft_prompt;
    tally.Add(prompt.kv.empty() ? "EmbeddingPrompt" : "KvPrefix", "prompt", "prompt",
              prompt.num_tokens, costs.soft_prompt);
  }
  if (program.rope) tally.Add("RopeTables", "attention", "attention", 0, costs.rope);
  if (program.scaling_pass) {
    tally.Add("Classifier", "scaling_pass", "hidden", program.scaling_pass->rule.size(),
              costs.scaling_pass);
  }
  return tally.Take();
}

}  // namespace

StatusOr<LoadReport> ReportOf(const AdapterSource& source, const AdapterProgram& program,
                              const ModelSpec& spec, const ProgramCosts& costs) {
  POLYAD_CHECK(costs.ops.size() == program.ops.size() &&
                   costs.hooks.size() == program.hooks.size() &&
                   costs.norms.size() == program.norms.size(),
               "one cost for each part of the program");
  LoadReport report;
  report.family = program.family;
  report.exactness = ExactnessOf(program);
  report.digest = ToHex(source.digest());
  report.num_tensors_read = source.num_tensors();
  report.file_bytes = source.file_bytes();
  report.ops = OpsOf(program, spec, costs);
  const DeltaCost sum = costs.Sum();
  report.resident_bytes = sum.bytes;
  report.flops_per_token = sum.flops_per_token;
  std::set<int64_t> ranks;
  std::set<std::string> targets;
  for (const SiteOp& op : program.ops) {
    if (RankOf(op.op) > 0) ranks.insert(RankOf(op.op));
    targets.insert(ModuleOf(spec, op.site));
  }
  report.ranks.assign(ranks.begin(), ranks.end());
  report.targets.assign(targets.begin(), targets.end());
  if (program.rope) report.max_context = program.rope->max_context;
  if (program.soft_prompt) report.num_virtual_tokens = program.soft_prompt->num_tokens;
  POLYAD_ASSIGN_OR_RETURN(report.layer_delta_norms, LayerDeltaNorms(program, spec));
  return report;
}

}  // namespace polyad
