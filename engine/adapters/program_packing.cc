#include "engine/adapters/program_packing.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <variant>

#include "engine/adapters/soft_prompt.h"
#include "engine/base/check.h"
#include "kernels/api/delta_check.h"
#include "kernels/api/give_way.h"

namespace polyad {
namespace {

SiteGroup GroupOf(SubLayer sub_layer) {
  return sub_layer == SubLayer::kAttention ? SiteGroup::kAttentionOut : SiteGroup::kMlpOut;
}

// Columns of the group's whole fused output.
int64_t GroupWidth(const ModelSpec& spec, SiteGroup group) {
  int64_t width = 0;
  for (const Site site : LayerSites(spec)) {
    if (GroupOf(site) == group) width += ShapeOf(spec, site).out;
  }
  return group == SiteGroup::kHead ? ShapeOf(spec, Site::kHead).out : width;
}

bool IsInputOp(const DeltaOp& op) {
  return std::holds_alternative<InputScale>(op) || std::holds_alternative<BlockRotation>(op) ||
         std::holds_alternative<Bottleneck>(op);
}

bool IsOutputOp(const DeltaOp& op) {
  return std::holds_alternative<OutputScale>(op) || std::holds_alternative<PairRotation>(op);
}

bool IsDelta(const DeltaOp& op) {
  return !std::holds_alternative<InputScale>(op) && !std::holds_alternative<BlockRotation>(op) &&
         !IsOutputOp(op) && !std::holds_alternative<EmbeddingRows>(op) &&
         !std::holds_alternative<EmbeddingLowRank>(op);
}

DeltaCost CostOf(const SegmentGate& gate) {
  const size_t width = gate.weight.size();
  return {FloatBytes(width), 2 * static_cast<int64_t>(width)};
}

DeltaCost CostOf(const GatedPrefix& prefix, int64_t query_width) {
  const auto floats = static_cast<size_t>(prefix.kv.rows * prefix.kv.cols) + prefix.gate.size();
  return {FloatBytes(floats), 4 * prefix.kv.rows * query_width};
}

class Packer {
 public:
  Packer(const ModelSpec& spec, Backend& backend, AdapterVersion& version)
      : spec_(spec), backend_(backend), version_(version) {}

  Status PackSiteOp(const SiteOp& site_op) {
    const SiteShape site = ShapeOf(spec_, site_op.site.site);
    POLYAD_RETURN_IF_ERROR(CheckFits(site_op, site));
    POLYAD_ASSIGN_OR_RETURN(std::shared_ptr<const PackedDelta> op, Pack(site_op.op, costs_.ops));
    const SiteGroup group = GroupOf(site_op.site.site);
    GroupOps& ops = GroupAt(site_op.site);
    switch (site_op.stage) {
      case OpStage::kInput:
        AddInput(site, GroupWidth(spec_, group), std::move(op), ops);
        break;
      case OpStage::kOutput:
        ops.outputs.push_back({site.column, std::move(op)});
        AddGate(site_op, ops.outputs.back());
        break;
      case OpStage::kDelta:
        if (site_op.mixture >= 0) {
          MixtureOf(site_op).experts.push_back({site_op.expert, {site.column, std::move(op)}});
        } else {
          ops.deltas.push_back({site.column, std::move(op)});
          AddGate(site_op, ops.deltas.back());
          ops.deltas.back().coefficient = site_op.coefficient;
        }
        break;
      case OpStage::kAfter:
        ops.after.push_back({site.column, std::move(op), site.out});
        break;
    }
    return absl::OkStatus();
  }

  // Before the experts.
  Status PackMixture(const Mixture& mixture) {
    const DeltaShape shape = ShapeOf(mixture.scores);
    const MixtureRule& rule = mixture.rule;
    POLYAD_RETURN_IF_ERROR(CheckDeltaOp(mixture.scores));
    if (!IsDelta(mixture.scores) || shape.in != ShapeOf(spec_, mixture.site.site).in ||
        shape.out != rule.num_experts || rule.num_experts < 1 || rule.num_experts > kMaxExperts) {
      return InvalidArgument("module %s: scores of [%d, %d] do not fit %d experts",
                             ModulePath(spec_, mixture.site), shape.out, shape.in,
                             rule.num_experts);
    }
    PackedMixture packed;
    POLYAD_ASSIGN_OR_RETURN(packed.scores, Pack(mixture.scores, costs_.mixtures));
    packed.rule = rule;
    std::vector<PackedMixture>& all = GroupAt(mixture.site).mixtures;
    mixtures_.push_back({mixture.site, all.size()});
    all.push_back(std::move(packed));
    return absl::OkStatus();
  }

  Status PackEmbeddingOp(const DeltaOp& op) {
    POLYAD_ASSIGN_OR_RETURN(std::shared_ptr<const PackedDelta> packed,
                            Pack(op, costs_.embedding_ops));
    if (ShapeOf(op).out != spec_.hidden_size || IsDelta(op)) {
      return InvalidArgument("embedding: expected an embedding op of width %d, got %s of %d",
                             spec_.hidden_size, NameOf(op), ShapeOf(op).out);
    }
    version_.AddEmbeddingOp(std::move(packed));
    return absl::OkStatus();
  }

  Status PackHook(const SubLayerHook& hook) {
    PackedHook packed;
    DeltaCost cost;
    POLYAD_ASSIGN_OR_RETURN(packed.op, PackOfHook(hook.layer, hook.op, cost));
    for (const DeltaOp& op : hook.more) {
      POLYAD_ASSIGN_OR_RETURN(auto more, PackOfHook(hook.layer, op, cost));
      packed.more.push_back(std::move(more));
    }
    if (hook.fusion) {
      POLYAD_ASSIGN_OR_RETURN(packed.fusion, PackFusion(hook, cost));
    }
    packed.input = hook.input;
    packed.skip = hook.skip;
    packed.outside = hook.outside;
    packed.joins = hook.joins;
    packed.weight = hook.weight;
    packed.rows = hook.rows;
    packed.norm_weight.assign(hook.norm.weight.begin(), hook.norm.weight.end());
    packed.norm_bias.assign(hook.norm.bias.begin(), hook.norm.bias.end());
    packed.norm_eps = hook.norm.eps;
    packed.norm_takes_skip = hook.norm_takes_skip;
    packed.adds_residual = hook.adds_residual;
    packed.gate = hook.gate;
    POLYAD_CHECK(GateFits(hook.gate, spec_.hidden_size), "a hook's gate");
    cost += CostOf(hook.gate);
    cost.bytes += FloatBytes(hook.norm.weight.size() + hook.norm.bias.size());
    costs_.hooks.push_back(cost);
    version_.MutableAt(hook.layer, GroupOf(hook.sub_layer)).hooks.push_back(std::move(packed));
    return absl::OkStatus();
  }

  void AddRouter(const TokenRouter& router) {
    const auto width = static_cast<int64_t>(router.weight.size());
    POLYAD_CHECK(width == spec_.hidden_size && router.layer >= 0 && router.layer < spec_.num_layers,
                 "a router's place and width");
    costs_.routers.push_back({FloatBytes(router.weight.size()), 2 * width});
    version_.MutableAt(router.layer, GroupOf(router.sub_layer))
        .routers.push_back(std::make_shared<const TokenRouter>(router));
  }

  Status PackStreamOp(const Bottleneck& op) {
    POLYAD_RETURN_IF_ERROR(CheckWidth(op, -1));
    POLYAD_ASSIGN_OR_RETURN(std::shared_ptr<const PackedDelta> packed, Pack(op, costs_.stream_ops));
    version_.AddStreamOp({0, std::move(packed)});
    return absl::OkStatus();
  }

  Status PackCoupling(const EmbeddingCoupling& coupling) {
    const DeltaShape first = ShapeOf(DeltaOp(coupling.first));
    const DeltaShape second = ShapeOf(DeltaOp(coupling.second));
    if (first.out + first.in != spec_.hidden_size || second.in != first.out ||
        second.out != first.in) {
      return InvalidArgument("embedding: expected a coupling of the halves of %d, got [%d, %d]",
                             spec_.hidden_size, first.out, first.in);
    }
    PackedCoupling packed;
    DeltaCost cost;
    POLYAD_ASSIGN_OR_RETURN(packed.first, PackInto(coupling.first, cost));
    POLYAD_ASSIGN_OR_RETURN(packed.second, PackInto(coupling.second, cost));
    costs_.couplings.push_back(cost);
    version_.AddCoupling(std::move(packed));
    return absl::OkStatus();
  }

  void ReplaceNorm(const NormReplacement& norm) {
    costs_.norms.push_back({FloatBytes(norm.weight.size() + norm.bias.size())});
    version_.ReplaceNorm(norm.layer, norm.site, {norm.weight, norm.bias});
  }

  Status PackSoftPrompt(const SoftPromptTensors& tensors) {
    POLYAD_ASSIGN_OR_RETURN(auto prompt, polyad::PackSoftPrompt(tensors, spec_, backend_));
    costs_.soft_prompt = prompt->gate_cost;
    costs_.soft_prompt.bytes += {Precision::kF32, prompt->bytes};
    version_.SetSoftPrompt(std::move(prompt));
    return absl::OkStatus();
  }

  void MakeRope(const OwnRope& own) {
    const auto tables =
        std::make_shared<const RopeTables>(own.rope, own.max_position, own.max_context);
    costs_.rope.bytes = {Precision::kF32, tables->bytes()};
    version_.SetRope(tables, own.max_context);
  }

  Status PackGatedPrefix(const GatedPrefixTensors& tensors) {
    POLYAD_ASSIGN_OR_RETURN(GatedPrefix prefix, polyad::PackGatedPrefix(tensors, spec_, backend_));
    costs_.gated_prefixes.push_back(CostOf(prefix, spec_.QueryWidth()));
    version_.AddGatedPrefix(std::move(prefix));
    return absl::OkStatus();
  }

  Status PackScalingPass(const ScalingPassTensors& tensors) {
    POLYAD_ASSIGN_OR_RETURN(ScalingPass pass, polyad::PackScalingPass(tensors, spec_, backend_));
    costs_.scaling_pass = pass.cost;
    version_.SetScalingPass(std::move(pass));
    return absl::OkStatus();
  }

  ProgramCosts TakeCosts() { return std::move(costs_); }

 private:
  GroupOps& GroupAt(SiteRef site) {
    const SiteGroup group = GroupOf(site.site);
    return version_.MutableAt(group == SiteGroup::kHead ? spec_.num_layers : site.layer, group);
  }
  PackedMixture& MixtureOf(const SiteOp& site_op) {
    const auto& [site, index] = mixtures_[static_cast<size_t>(site_op.mixture)];
    PackedMixture& mixture = GroupAt(site).mixtures[index];
    POLYAD_CHECK(site == site_op.site && site_op.expert < mixture.rule.num_experts,
                 "an expert of another site's mixture");
    return mixture;
  }

  StatusOr<std::shared_ptr<const PackedDelta>> Pack(const DeltaOp& op,
                                                    std::vector<DeltaCost>& costs) {
    DeltaCost cost;
    POLYAD_ASSIGN_OR_RETURN(std::shared_ptr<const PackedDelta> packed, PackInto(op, cost));
    costs.push_back(cost);
    return packed;
  }
  // Adds to what several ops cost together.
  StatusOr<std::shared_ptr<const PackedDelta>> PackInto(const DeltaOp& op, DeltaCost& cost) {
    POLYAD_ASSIGN_OR_RETURN(std::shared_ptr<const PackedDelta> packed,
                            backend_.PackDelta(op, share_));
    cost += packed->cost();
    GiveWay();
    return packed;
  }
  // A hook's ops are all of the stream's width.
  StatusOr<std::shared_ptr<const PackedDelta>> PackOfHook(int64_t layer, const DeltaOp& op,
                                                          DeltaCost& cost) {
    if (!std::holds_alternative<Bias>(op)) POLYAD_RETURN_IF_ERROR(CheckWidth(op, layer));
    return PackInto(op, cost);
  }

  StatusOr<std::shared_ptr<const PackedFusion>> PackFusion(const SubLayerHook& hook,
                                                           DeltaCost& cost) {
    const HookFusion& fusion = *hook.fusion;
    POLYAD_CHECK(fusion.keys.size() == hook.more.size() + 1, "a key for each op");
    if (static_cast<int64_t>(fusion.keys.size()) > kMaxFused) {
      return Unimplemented("layer %d: expected at most %d fused adapters, got %d", hook.layer,
                           kMaxFused, fusion.keys.size());
    }
    auto packed = std::make_shared<PackedFusion>();
    packed->query = fusion.query;
    if (fusion.query_map.delta.rows > 0) {
      POLYAD_ASSIGN_OR_RETURN(packed->query_map, PackOfHook(hook.layer, fusion.query_map, cost));
    }
    if (!fusion.query_bias.values.empty()) {
      POLYAD_ASSIGN_OR_RETURN(packed->query_bias, PackOfHook(hook.layer, fusion.query_bias, cost));
    }
    for (const Bottleneck& key : fusion.keys) {
      POLYAD_ASSIGN_OR_RETURN(auto op, PackOfHook(hook.layer, key, cost));
      packed->keys.push_back(std::move(op));
    }
    return std::shared_ptr<const PackedFusion>(std::move(packed));
  }

  static bool GateFits(const SegmentGate& gate, int64_t width) {
    return gate.weight.empty() || static_cast<int64_t>(gate.weight.size()) == width;
  }
  // The head's rows are those that sample, not a segment's.
  bool GateFits(const SiteOp& op) const {
    if (op.gate.weight.empty()) return true;
    const SiteShape site = ShapeOf(spec_, op.site.site);
    return GateFits(op.gate, site.in) && op.gate_begin <= op.gate_end && op.gate_end <= site.out &&
           (op.stage == OpStage::kDelta || op.stage == OpStage::kOutput) &&
           op.site.site != Site::kHead;
  }
  void AddGate(const SiteOp& site_op, SiteDelta& to) {
    if (site_op.gate.weight.empty()) return;
    to.gate = std::make_shared<SegmentGate>(site_op.gate);
    to.gate_column = to.y_column + site_op.gate_begin;
    to.gate_columns = site_op.gate_end - site_op.gate_begin;
    costs_.ops.back() += CostOf(site_op.gate);
  }

  // What reads and changes the residual stream.
  Status CheckWidth(const DeltaOp& op, int64_t layer) const {
    POLYAD_RETURN_IF_ERROR(CheckDeltaOp(op));
    const DeltaShape shape = ShapeOf(op);
    if (shape.in == spec_.hidden_size && shape.out == spec_.hidden_size) return absl::OkStatus();
    return InvalidArgument("layer %d: expected an adapter of width %d, got [%d, %d]", layer,
                           spec_.hidden_size, shape.out, shape.in);
  }

  Status CheckFits(const SiteOp& site_op, const SiteShape& site) const {
    POLYAD_RETURN_IF_ERROR(CheckDeltaOp(site_op.op));
    const DeltaShape shape = ShapeOf(site_op.op);
    POLYAD_CHECK(GateFits(site_op), "a site's gate");
    bool fits = false;
    switch (site_op.stage) {
      case OpStage::kInput:
        fits = IsInputOp(site_op.op) && shape.in == site.in && shape.out == site.in;
        break;
      case OpStage::kOutput:
        fits = IsOutputOp(site_op.op) && shape.out == site.out;
        break;
      case OpStage::kDelta:
        fits =
            IsDelta(site_op.op) && (shape.in == 0 || shape.in == site.in) && shape.out == site.out;
        break;
      case OpStage::kAfter:
        fits = IsDelta(site_op.op) && shape.in == site.out && shape.out == site.out;
        break;
    }
    if (fits) return absl::OkStatus();
    return InvalidArgument("module %s [%d, %d]: a %s of [%d, %d] does not fit",
                           ModulePath(spec_, site_op.site), site.out, site.in, NameOf(site_op.op),
                           shape.out, shape.in);
  }

  static void AddInput(const SiteShape& site, int64_t group_width,
                       std::shared_ptr<const PackedDelta> op, GroupOps& ops) {
    for (InputOps& inputs : ops.inputs) {
      if (inputs.column_begin != site.column) continue;
      inputs.ops.push_back(std::move(op));
      return;
    }
    InputOps inputs{site.column, site.column + site.out, site.out == group_width, {}};
    inputs.ops.push_back(std::move(op));
    ops.inputs.push_back(std::move(inputs));
  }

  const ModelSpec& spec_;
  Backend& backend_;
  AdapterVersion& version_;
  PackShare share_;
  std::vector<std::pair<SiteRef, size_t>> mixtures_;  // the program's, among their groups' own
  ProgramCosts costs_;
};

// Ops as a step meets them, so that their packed forms lie in memory in that order: files list
// modules by name. Ops of one site keep their order.
std::vector<size_t> StepOrder(const std::vector<SiteOp>& ops, int64_t num_layers) {
  std::vector<size_t> order(ops.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto place = [&](size_t at) {
    const SiteRef& site = ops[at].site;
    return std::pair(site.layer < 0 ? num_layers : site.layer, site.site);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return place(a) < place(b); });
  return order;
}

}  // namespace

SiteGroup GroupOf(Site site) {
  switch (site) {
    case Site::kQ:
    case Site::kK:
    case Site::kV:
    case Site::kQkv:
      return SiteGroup::kQkv;
    case Site::kO:
      return SiteGroup::kAttentionOut;
    case Site::kGate:
    case Site::kUp:
    case Site::kFcIn:
      return SiteGroup::kMlpIn;
    case Site::kDown:
    case Site::kFcOut:
      return SiteGroup::kMlpOut;
    case Site::kHead:
      return SiteGroup::kHead;
    case Site::kEmbed:
      break;
  }
  POLYAD_CHECK(false, "a lowering gave a site op to the embedding");
  return SiteGroup::kQkv;
}

StatusOr<ProgramCosts> PackProgram(const AdapterProgram& program, const ModelSpec& spec,
                                   Backend& backend, AdapterVersion& version) {
  Packer packer(spec, backend, version);
  for (const Mixture& mixture : program.mixtures) {
    POLYAD_RETURN_IF_ERROR(packer.PackMixture(mixture));
  }
  const std::vector<size_t> order = StepOrder(program.ops, spec.num_layers);
  for (const size_t at : order) POLYAD_RETURN_IF_ERROR(packer.PackSiteOp(program.ops[at]));
  for (const DeltaOp& op : program.embedding_ops) {
    POLYAD_RETURN_IF_ERROR(packer.PackEmbeddingOp(op));
  }
  for (const TokenRouter& router : program.routers) packer.AddRouter(router);
  for (const SubLayerHook& hook : program.hooks) POLYAD_RETURN_IF_ERROR(packer.PackHook(hook));
  for (const Bottleneck& op : program.stream_ops) {
    POLYAD_RETURN_IF_ERROR(packer.PackStreamOp(op));
  }
  for (const EmbeddingCoupling& coupling : program.couplings) {
    POLYAD_RETURN_IF_ERROR(packer.PackCoupling(coupling));
  }
  if (program.rope) packer.MakeRope(*program.rope);
  for (const NormReplacement& norm : program.norms) packer.ReplaceNorm(norm);
  if (program.soft_prompt) {
    POLYAD_RETURN_IF_ERROR(packer.PackSoftPrompt(*program.soft_prompt));
  }
  for (const GatedPrefixTensors& tensors : program.gated_prefixes) {
    POLYAD_RETURN_IF_ERROR(packer.PackGatedPrefix(tensors));
  }
  if (program.scaling_pass) {
    POLYAD_RETURN_IF_ERROR(packer.PackScalingPass(*program.scaling_pass));
  }
  version.SetInvocationTokens(program.invocation_tokens);
  if (program.reads_whole_prompt) version.SetReadsWholePrompt();
  if (program.reads_positions) version.SetReadsPositions();
  ProgramCosts costs = packer.TakeCosts();
  const std::vector<DeltaCost> packed = std::move(costs.ops);
  costs.ops.resize(order.size());
  for (size_t i = 0; i < order.size(); ++i) costs.ops[order[i]] = packed[i];
  version.AddCost(costs.Sum());
  return costs;
}

}  // namespace polyad
