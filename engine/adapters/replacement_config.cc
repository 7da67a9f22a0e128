#include "engine/adapters/replacement_config.h"

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/adapters/module_tensors.h"
#include "engine/io/json.h"
#include "engine/spec/sites.h"
#include "engine/spec/weight_names.h"

namespace polyad {
namespace {

constexpr size_t kMaxModulesToSave = 1024;
constexpr std::string_view kBase = ".base_layer.";
constexpr std::string_view kBiasLeaf = ".bias";
constexpr std::string_view kWeightLeaf = ".weight";

enum class BiasMode { kNone, kAll, kWrapped };

// The base's own name of a tensor that stands for one of its own; empty for any other name.
std::string PlainName(std::string_view name) {
  if (!name.starts_with(kPeftPrefix)) return "";
  std::string plain(name.substr(kPeftPrefix.size()));
  if (const size_t at = plain.find(kBase); at != std::string::npos)
    plain.replace(at, kBase.size(), ".");
  return plain;
}

std::string WithoutLeaf(const std::string& name, std::string_view leaf) {
  return name.ends_with(leaf) ? name.substr(0, name.size() - leaf.size()) : "";
}

// The module that a family's tensor ("<module>.lora_A.weight") is for, where that is a linear one.
std::string WrappedModule(const ModelSpec& spec, std::string_view name) {
  if (!name.starts_with(kPeftPrefix)) return "";
  name.remove_prefix(kPeftPrefix.size());
  for (size_t dot = name.rfind('.'); dot != std::string_view::npos; dot = name.rfind('.', dot)) {
    const std::string_view leaf = name.substr(dot);
    name = name.substr(0, dot);
    const StatusOr<SiteRef> site = ResolveModulePath(spec, name);
    if (!site.ok()) continue;
    const bool own = leaf == kBiasLeaf || leaf == kWeightLeaf;  // replaced, not wrapped
    return own ? "" : std::string(name);
  }
  return "";
}

class ReplacementConfig {
 public:
  ReplacementConfig(const AdapterSource& source, const ModelSpec& spec)
      : source_(source), spec_(spec), names_(source.RemainingNames()) {
    for (WeightEntry& entry : WeightPlan(spec, WeightFormat::kHuggingFace)) {
      if (entry.tensor_name.ends_with(kBiasLeaf)) biases_.insert(entry.tensor_name);
      weights_.push_back(std::move(entry.tensor_name));
    }
  }

  Status Check() {
    POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                            OrderedJsonFields::Of(source_.config(), "adapter_config.json"));
    POLYAD_ASSIGN_OR_RETURN(const BiasMode mode, ReadBias(config));
    POLYAD_ASSIGN_OR_RETURN(saved_, config.StringsOr("modules_to_save", {}));
    if (saved_.size() > kMaxModulesToSave) {
      return ResourceExhausted("adapter_config.json: modules_to_save: %d names, the limit is %d",
                               saved_.size(), kMaxModulesToSave);
    }
    POLYAD_RETURN_IF_ERROR(CheckSavedModules());
    POLYAD_RETURN_IF_ERROR(CheckDeniedBiases(mode));
    if (mode == BiasMode::kAll) return CheckAllBiases();
    if (mode == BiasMode::kWrapped) return CheckWrappedBiases();
    return absl::OkStatus();
  }

 private:
  StatusOr<BiasMode> ReadBias(const OrderedJsonFields& config) {
    POLYAD_ASSIGN_OR_RETURN(bias_, config.StringOr("bias", "none"));
    if (bias_ == "none") return BiasMode::kNone;
    if (bias_ == "all") return BiasMode::kAll;
    if (bias_.ends_with("_only")) return BiasMode::kWrapped;
    return Unimplemented(
        "adapter_config.json: bias = '%s' is not served (expected none, all or <type>_only)",
        bias_.substr(0, 60));
  }

  bool HasReplacement(const std::string& plain) const {
    const std::string name = std::string(kPeftPrefix) + plain;
    const size_t leaf = name.rfind('.');
    return source_.Has(name) ||
           source_.Has(name.substr(0, leaf) + std::string(kBase) + name.substr(leaf + 1));
  }

  // PEFT saves a module whose path ends with one of the names, with all that is in it.
  bool IsSaved(std::string_view path) const {
    for (size_t end = path.size(); end != std::string_view::npos; end = path.rfind('.')) {
      path = path.substr(0, end);
      for (const std::string& name : saved_) {
        if (!name.empty() && path.ends_with(name)) return true;
      }
    }
    return false;
  }

  Status CheckSavedModules() const {
    if (saved_.empty()) return absl::OkStatus();
    for (const std::string& name : weights_) {
      if (IsSaved(name.substr(0, name.rfind('.')))) POLYAD_RETURN_IF_ERROR(CheckSaved(name));
    }
    // A tied head is saved as the embedding or as itself.
    const bool tied = spec_.tie_embeddings && IsSaved("lm_head");
    if (!tied || HasReplacement(EmbeddingName())) return absl::OkStatus();
    return CheckSaved("lm_head.weight");
  }

  std::string EmbeddingName() const { return ModulePath(spec_, {-1, Site::kEmbed}) + ".weight"; }

  Status CheckSaved(const std::string& plain) const {
    if (HasReplacement(plain)) return absl::OkStatus();
    return InvalidArgument(
        "tensor %s%s: missing (adapter_config.json: modules_to_save names its module)",
        std::string(kPeftPrefix), plain);
  }

  // A norm is never wrapped; a linear module may be one whose pair was pruned away.
  bool IsDenied(BiasMode mode, const std::string& plain) const {
    const std::string path = WithoutLeaf(plain, kBiasLeaf);
    if (path.empty() || mode == BiasMode::kAll) return false;
    const bool linear = ResolveModulePath(spec_, path).ok();
    return (linear ? mode == BiasMode::kNone : biases_.contains(plain)) && !IsSaved(path);
  }

  Status CheckDeniedBiases(BiasMode mode) const {
    for (const std::string& name : names_) {
      if (!IsDenied(mode, PlainName(name))) continue;
      return InvalidArgument("tensor %s: adapter_config.json denies it (bias = '%s')", name, bias_);
    }
    return absl::OkStatus();
  }

  Status CheckBias(const std::string& plain) const {
    if (HasReplacement(plain)) return absl::OkStatus();
    return InvalidArgument("tensor %s%s: missing (adapter_config.json: bias = '%s')",
                           std::string(kPeftPrefix), plain, bias_);
  }

  Status CheckAllBiases() const {
    for (const std::string& plain : biases_) POLYAD_RETURN_IF_ERROR(CheckBias(plain));
    return absl::OkStatus();
  }

  Status CheckWrappedBiases() const {
    std::set<std::string> modules;
    for (const std::string& name : names_) modules.insert(WrappedModule(spec_, name));
    for (const std::string& module : modules) {
      const std::string plain = module + std::string(kBiasLeaf);
      if (biases_.contains(plain)) POLYAD_RETURN_IF_ERROR(CheckBias(plain));
    }
    return absl::OkStatus();
  }

  const AdapterSource& source_;
  const ModelSpec& spec_;
  const std::vector<std::string> names_;  // the file's
  std::vector<std::string> weights_;      // the base's
  std::set<std::string> biases_;          // the base's
  std::vector<std::string> saved_;
  std::string bias_;
};

}  // namespace

Status CheckReplacementConfig(const AdapterSource& source, const ModelSpec& spec) {
  return ReplacementConfig(source, spec).Check();
}

}  // namespace polyad
