// X-LoRA: at every module that any of K LoRAs changes, y = W x + w sum over k of c_k s_k B_k (A_k
// x), where the coefficients c are each token's own: a classifier makes them of the base's last
// hidden state, one distribution for all modules or one for each, in the order the model has its
// modules. Lowers to LowRank with coefficients, and a scaling pass. LoRA's variants, which PEFT
// computes otherwise here or not at all, are refused. Source: zoo sections 5.6 and 10; peft 0.21.2,
// tuners/xlora.

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "engine/adapters/families/family.h"
#include "engine/adapters/family_table.h"
#include "engine/adapters/module_tensors.h"
#include "engine/adapters/peft_config.h"
#include "engine/adapters/xlora_config.h"

namespace polyad {
namespace {

constexpr std::string_view kVariants[] = {"use_dora",
                                          "use_qalora",
                                          "use_bdlora",
                                          "lora_bias",
                                          "kasa_config",
                                          "target_parameters",
                                          "velora_config",
                                          "monteclora_config",
                                          "modules_to_save",
                                          "alora_invocation_tokens",
                                          "trainable_token_indices"};

Status InFolder(size_t folder, const Status& status) {
  return Status(status.code(), absl::StrFormat("LoRA %d: %s", folder, status.message()));
}

// Pairs of linear modules and nothing else.
Status CheckPlain(const OrderedJson& config, const AdapterProgram& program) {
  for (const std::string_view variant : kVariants) {
    POLYAD_RETURN_IF_ERROR(RefuseIfSet(config, variant, "within X-LoRA"));
  }
  if (program.family != "LORA") {
    return Unimplemented("adapter_config.json: peft_type '%s' within X-LoRA", program.family);
  }
  bool plain = program.embedding_ops.empty() && program.norms.empty() && !program.read_base;
  std::set<SiteRef> seen;
  for (const SiteOp& op : program.ops) {
    plain = plain && std::holds_alternative<LowRank>(op.op) && op.stage == OpStage::kDelta &&
            op.site.site != Site::kHead && seen.insert(op.site).second;
  }
  if (plain) return absl::OkStatus();
  return Unimplemented(
      "adapter_config.json: more than pairs of the layers' linear modules within X-LoRA");
}

StatusOr<AdapterProgram> LowerExpert(AdapterSource& part, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(AdapterProgram program, LowerAdapter(part, context));
  POLYAD_RETURN_IF_ERROR(CheckPlain(part.config(), program));
  return program;
}

std::string ClassifierName(int64_t layer, std::string_view leaf) {
  return absl::StrFormat("base_model.internal_xlora_classifier.layers.%d.%s", layer, leaf);
}

class XLoraLowering {
 public:
  XLoraLowering(AdapterSource& source, const LoweringContext& context, const XloraConfig& config)
      : source_(source), context_(context), config_(config) {}

  StatusOr<AdapterProgram> Run() && {
    for (size_t k = 0; k < source_.parts().size(); ++k) {
      StatusOr<AdapterProgram> expert = LowerExpert(source_.parts()[k], context_);
      if (!expert.ok()) return InFolder(k, expert.status());
      Add(static_cast<int64_t>(k), std::move(*expert));
    }
    NumberGroups();
    POLYAD_RETURN_IF_ERROR(Classifier());
    return std::move(program_);
  }

 private:
  // Its terms, with the expert in the place of the coefficient.
  void Add(int64_t expert, AdapterProgram program) {
    for (SiteOp& op : program.ops) {
      std::get<LowRank>(op.op).scale *= config_.weight;
      op.coefficient = expert;
      program_.ops.push_back(std::move(op));
    }
    program_.arena.Absorb(std::move(program.arena));
  }

  // A module's place among those that any of the LoRAs changes.
  void NumberGroups() {
    std::map<SiteRef, int64_t> groups;
    for (const SiteOp& op : program_.ops) groups[op.site] = 0;
    int64_t next = 0;
    for (auto& [site, group] : groups) group = next++;
    num_groups_ = config_.per_module ? next : 1;
    if (!config_.per_module) return;
    for (SiteOp& op : program_.ops) {
      op.coefficient += groups[op.site] * config_.num_experts;
    }
  }

  // Names count the activations between the layers, and the dropouts where training had them.
  Status Classifier() {
    ScalingPassTensors pass;
    pass.rule = config_.rule;
    pass.rule.num_groups = num_groups_;
    int64_t in = context_.spec.hidden_size;
    const int64_t step = config_.has_dropout ? 3 : 2;
    for (int64_t layer = 0; layer < config_.depth; ++layer) {
      const int64_t out = layer + 1 == config_.depth ? pass.rule.size() : config_.width;
      ScalingPassTensors::Layer& to = pass.layers.emplace_back();
      const std::string name = ClassifierName(layer * step, "weight");
      POLYAD_ASSIGN_OR_RETURN(to.weight, source_.TakeMatrix(name));
      if (to.weight.rows != out || to.weight.cols != in) {
        return InvalidArgument("tensor %s: expected [%d, %d], got [%d, %d]", name, out, in,
                               to.weight.rows, to.weight.cols);
      }
      POLYAD_ASSIGN_OR_RETURN(FloatTensor bias,
                              TakeFloats(source_, ClassifierName(layer * step, "bias"), {out}));
      to.bias = std::move(bias.values);
      in = out;
    }
    program_.scaling_pass = std::move(pass);
    return absl::OkStatus();
  }

  AdapterSource& source_;
  const LoweringContext& context_;
  const XloraConfig& config_;
  AdapterProgram program_;
  int64_t num_groups_ = 1;
};

}  // namespace

StatusOr<AdapterProgram> LowerXLora(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const XloraConfig config,
                          ReadXloraConfig(source.config(), context.spec.hidden_size));
  return XLoraLowering(source, context, config).Run();
}

}  // namespace polyad
