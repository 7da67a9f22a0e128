#include "engine/adapters/program_packing.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <variant>

#include "engine/adapters/soft_prompt.h"
#include "engine/base/check.h"
#include "engine/base/give_way.h"
#include "kernels/api/delta_check.h"

namespace polyad {
namespace {

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

class Packer {
 public:
  Packer(const ModelSpec& spec, Backend& backend, AdapterVersion& version)
      : spec_(spec), backend_(backend), version_(version) {}

  Status PackSiteOp(const SiteOp& site_op) {
    const SiteShape site = ShapeOf(spec_, site_op.site.site);
    POLYAD_RETURN_IF_ERROR(CheckFits(site_op, site));
    POLYAD_ASSIGN_OR_RETURN(std::shared_ptr<const PackedDelta> op, Pack(site_op.op));
    const SiteGroup group = GroupOf(site_op.site.site);
    const int64_t layer = group == SiteGroup::kHead ? spec_.num_layers : site_op.site.layer;
    GroupOps& ops = version_.MutableAt(layer, group);
    switch (site_op.stage) {
      case OpStage::kInput:
        AddInput(site, GroupWidth(spec_, group), std::move(op), ops);
        break;
      case OpStage::kOutput:
        ops.outputs.push_back({site.column, std::move(op)});
        break;
      case OpStage::kDelta:
        ops.deltas.push_back({site.column, std::move(op)});
        break;
      case OpStage::kAfter:
        ops.after.push_back({site.column, std::move(op), site.out});
        break;
    }
    return absl::OkStatus();
  }

  Status PackEmbeddingOp(const DeltaOp& op) {
    POLYAD_ASSIGN_OR_RETURN(std::shared_ptr<const PackedDelta> packed, Pack(op));
    if (ShapeOf(op).out != spec_.hidden_size || IsDelta(op)) {
      return InvalidArgument("embedding: expected an embedding op of width %d, got %s of %d",
                             spec_.hidden_size, NameOf(op), ShapeOf(op).out);
    }
    version_.AddEmbeddingOp(std::move(packed));
    return absl::OkStatus();
  }

  Status PackHook(const SubLayerHook& hook) {
    POLYAD_RETURN_IF_ERROR(CheckWidth(hook.op, hook.layer));
    PackedHook packed;
    POLYAD_ASSIGN_OR_RETURN(packed.op, Pack(hook.op));
    packed.input = hook.input;
    packed.skip = hook.skip;
    packed.norm_weight.assign(hook.norm.weight.begin(), hook.norm.weight.end());
    packed.norm_bias.assign(hook.norm.bias.begin(), hook.norm.bias.end());
    packed.norm_eps = hook.norm.eps;
    packed.norm_takes_skip = hook.norm_takes_skip;
    packed.adds_residual = hook.adds_residual;
    const SiteGroup group =
        hook.sub_layer == SubLayer::kAttention ? SiteGroup::kAttentionOut : SiteGroup::kMlpOut;
    version_.MutableAt(hook.layer, group).hooks.push_back(std::move(packed));
    return absl::OkStatus();
  }

  Status PackStreamOp(const Bottleneck& op) {
    POLYAD_RETURN_IF_ERROR(CheckWidth(op, -1));
    POLYAD_ASSIGN_OR_RETURN(std::shared_ptr<const PackedDelta> packed, Pack(op));
    version_.AddStreamOp({0, std::move(packed)});
    return absl::OkStatus();
  }

  std::vector<DeltaCost> TakeCosts() { return std::move(costs_); }

 private:
  StatusOr<std::shared_ptr<const PackedDelta>> Pack(const DeltaOp& op) {
    POLYAD_ASSIGN_OR_RETURN(std::shared_ptr<const PackedDelta> packed,
                            backend_.PackDelta(op, share_));
    version_.AddCost(packed->cost());
    costs_.push_back(packed->cost());
    GiveWay();
    return packed;
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
  std::vector<DeltaCost> costs_;
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

StatusOr<std::vector<DeltaCost>> PackProgram(const AdapterProgram& program, const ModelSpec& spec,
                                             Backend& backend, AdapterVersion& version) {
  Packer packer(spec, backend, version);
  const std::vector<size_t> order = StepOrder(program.ops, spec.num_layers);
  for (const size_t at : order) POLYAD_RETURN_IF_ERROR(packer.PackSiteOp(program.ops[at]));
  for (const DeltaOp& op : program.embedding_ops) {
    POLYAD_RETURN_IF_ERROR(packer.PackEmbeddingOp(op));
  }
  for (const SubLayerHook& hook : program.hooks) POLYAD_RETURN_IF_ERROR(packer.PackHook(hook));
  for (const Bottleneck& op : program.stream_ops) {
    POLYAD_RETURN_IF_ERROR(packer.PackStreamOp(op));
  }
  for (const NormReplacement& norm : program.norms) {
    version.ReplaceNorm(norm.layer, norm.site, {norm.weight, norm.bias});
  }
  if (program.soft_prompt) {
    POLYAD_ASSIGN_OR_RETURN(auto prompt, PackSoftPrompt(*program.soft_prompt, spec, backend));
    version.SetSoftPrompt(std::move(prompt));
  }
  for (const GatedPrefixTensors& tensors : program.gated_prefixes) {
    POLYAD_ASSIGN_OR_RETURN(GatedPrefix prefix, PackGatedPrefix(tensors, spec, backend));
    version.AddCost({prefix.bytes(), 4 * tensors.num_keys * spec.QueryWidth()});
    version.AddGatedPrefix(std::move(prefix));
  }
  version.SetInvocationTokens(program.invocation_tokens);
  const std::vector<DeltaCost> packed = packer.TakeCosts();
  std::vector<DeltaCost> costs = packed;
  for (size_t i = 0; i < order.size(); ++i) costs[order[i]] = packed[i];
  return costs;
}

}  // namespace polyad
