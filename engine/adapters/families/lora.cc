// LoRA and rsLoRA, as PEFT saves them: y += s B (A x), s = alpha / r, or alpha / sqrt(r) with
// use_rslora; r and alpha may differ by module (rank_pattern, alpha_pattern). Lowers to one LowRank
// per adapted linear site; a fused projection (GPT-2's c_attn) is one site. Source: zoo
// sections 4.1 and 5.1; peft 0.21.2, tuners/lora.

#include <cmath>
#include <string>
#include <string_view>

#include "engine/adapters/families/family.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kSuffixA = ".lora_A.weight";
constexpr std::string_view kSuffixB = ".lora_B.weight";
constexpr int64_t kMaxRank = 8192;

// Keys that say nothing about the forward pass, or that the lowering reads.
constexpr std::string_view kUnderstood[] = {"peft_type",
                                            "task_type",
                                            "base_model_name_or_path",
                                            "revision",
                                            "inference_mode",
                                            "peft_version",
                                            "auto_mapping",
                                            "r",
                                            "lora_alpha",
                                            "use_rslora",
                                            "rank_pattern",
                                            "alpha_pattern",
                                            "target_modules",
                                            "exclude_modules",
                                            "layers_to_transform",
                                            "layers_pattern",
                                            "fan_in_fan_out",
                                            "lora_dropout",
                                            "bias",
                                            "init_lora_weights",
                                            "megatron_config",
                                            "megatron_core",
                                            "loftq_config",
                                            "eva_config",
                                            "runtime_config",
                                            "ensure_weight_tying",
                                            "qalora_group_size",
                                            "corda_config",
                                            "lora_ga_config"};

struct Scalars {
  PatternValues rank;
  PatternValues alpha;
  bool rank_stabilised = false;
};

// Initialisations that changed the base weights while training: the file alone does not describe
// the change.
Status CheckInitialisation(const OrderedJsonFields& config) {
  const OrderedJson* init = config.Find("init_lora_weights");
  if (init == nullptr || init->is_boolean()) return absl::OkStatus();
  if (!init->is_string()) return config.WrongType("init_lora_weights", "a boolean or a string");
  const auto name = init->get<std::string>();
  if (name == "gaussian" || name == "eva" || name == "orthogonal") return absl::OkStatus();
  return Unimplemented(
      "adapter_config.json: init_lora_weights = '%s' changed the base weights in training; convert "
      "the adapter first "
      "(save_pretrained with path_initial_model_for_weight_conversion)",
      name);
}

Status CheckVariant(const OrderedJsonFields& config) {
  struct Variant {
    std::string_view key;
    std::string_view what;
  };
  constexpr Variant kVariants[] = {{"use_dora", "DoRA"},
                                   {"lora_bias", "a bias on lora_B"},
                                   {"use_qalora", "QA-LoRA"},
                                   {"use_bdlora", "BD-LoRA"},
                                   {"alora_invocation_tokens", "activated LoRA"},
                                   {"trainable_token_indices", "trainable tokens"},
                                   {"target_parameters", "LoRA on expert parameters"},
                                   {"layer_replication", "it changes the base model's layers"},
                                   {"modules_to_save", "replaced modules"},
                                   {"arrow_config", "Arrow routing"},
                                   {"kasa_config", "KaSA"}};
  for (const Variant& variant : kVariants) {
    POLYAD_RETURN_IF_ERROR(RefuseIfSet(config.object(), variant.key, variant.what));
  }
  POLYAD_ASSIGN_OR_RETURN(const std::string bias, config.StringOr("bias", "none"));
  if (bias != "none") {
    return Unimplemented("adapter_config.json: bias = '%s' is not served (trained biases)", bias);
  }
  return CheckKnownKeys(config.object(), kUnderstood);
}

StatusOr<Scalars> ReadScalars(const OrderedJson& json) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          OrderedJsonFields::Of(json, "adapter_config.json"));
  POLYAD_RETURN_IF_ERROR(CheckVariant(config));
  POLYAD_RETURN_IF_ERROR(CheckInitialisation(config));
  Scalars scalars;
  POLYAD_ASSIGN_OR_RETURN(scalars.rank, PatternValues::Parse(config, "r", "rank_pattern", 8));
  POLYAD_ASSIGN_OR_RETURN(scalars.alpha,
                          PatternValues::Parse(config, "lora_alpha", "alpha_pattern", 8));
  POLYAD_ASSIGN_OR_RETURN(scalars.rank_stabilised, config.BoolOr("use_rslora", false));
  return scalars;
}

Status CheckShapes(const std::string& path, const LowRank& op, const SiteShape& shape,
                   int64_t rank) {
  if (op.a.rows != rank || op.b.cols != rank) {
    return InvalidArgument(
        "module %s: adapter_config.json says rank %d, got lora_A [%d, %d] and lora_B [%d, %d]",
        path, rank, op.a.rows, op.a.cols, op.b.rows, op.b.cols);
  }
  if (op.a.cols != shape.in) {
    return FailedPrecondition(
        "tensor %s.lora_A: expected [%d, %d], got [%d, %d]: made for another base model", path,
        rank, shape.in, op.a.rows, op.a.cols);
  }
  if (op.b.rows != shape.out) {
    return FailedPrecondition(
        "tensor %s.lora_B: expected [%d, %d], got [%d, %d]: made for another base model", path,
        shape.out, rank, op.b.rows, op.b.cols);
  }
  return absl::OkStatus();
}

StatusOr<SiteOp> LowerModule(AdapterSource& source, const ModelSpec& spec, const Scalars& scalars,
                             const std::string& path) {
  const StatusOr<SiteRef> site = ResolveModulePath(spec, path);
  if (!site.ok()) {
    return FailedPrecondition(
        "tensor %s.lora_A.weight: the base model has no linear module of this name", path);
  }
  if (site->site == Site::kEmbed || site->site == Site::kHead) {
    return Unimplemented("tensor %s.lora_A.weight: LoRA on embeddings and heads is not served",
                         path);
  }
  const double rank = scalars.rank.For(path);
  const double scale = scalars.alpha.For(path) / (scalars.rank_stabilised ? std::sqrt(rank) : rank);
  if (rank < 1 || rank > kMaxRank || rank != std::floor(rank) || !std::isfinite(scale)) {
    return InvalidArgument("module %s: expected a rank in [1, %d], got %g", path, kMaxRank, rank);
  }
  LowRank op;
  POLYAD_ASSIGN_OR_RETURN(op.a,
                          source.TakeMatrix(std::string(kPrefix) + path + std::string(kSuffixA)));
  POLYAD_ASSIGN_OR_RETURN(op.b,
                          source.TakeMatrix(std::string(kPrefix) + path + std::string(kSuffixB)));
  op.scale = static_cast<float>(scale);
  POLYAD_RETURN_IF_ERROR(
      CheckShapes(path, op, ShapeOf(spec, site->site), static_cast<int64_t>(rank)));
  return SiteOp{*site, op, OpStage::kDelta};
}

}  // namespace

StatusOr<AdapterProgram> LowerLora(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const Scalars scalars, ReadScalars(source.config()));
  AdapterProgram program;
  for (const std::string& name : source.RemainingNames()) {
    const std::string_view view = name;
    if (!view.starts_with(kPrefix) || !view.ends_with(kSuffixA)) continue;
    const std::string path(
        view.substr(kPrefix.size(), view.size() - kPrefix.size() - kSuffixA.size()));
    POLYAD_ASSIGN_OR_RETURN(SiteOp op, LowerModule(source, context.spec, scalars, path));
    program.ops.push_back(std::move(op));
  }
  return program;
}

}  // namespace polyad
