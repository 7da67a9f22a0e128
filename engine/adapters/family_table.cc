#include "engine/adapters/family_table.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "engine/adapters/adapterhub_config.h"
#include "engine/adapters/base_record.h"
#include "engine/adapters/base_replacements.h"
#include "engine/adapters/own_rope.h"
#include "engine/adapters/replacement_config.h"

namespace polyad {

#define POLYAD_FAMILY(format, type, lower) \
  StatusOr<AdapterProgram> lower(AdapterSource& source, const LoweringContext& context);
#include "engine/adapters/families/families.inc"
#undef POLYAD_FAMILY

namespace {

constexpr Family kFamilies[] = {
#define POLYAD_FAMILY(format, type, lower) {type, lower, AdapterFormat::format},
#include "engine/adapters/families/families.inc"
#undef POLYAD_FAMILY
};

// Tells whether a lowering read any of the base.
class CountedBaseWeights final : public BaseWeights {
 public:
  explicit CountedBaseWeights(const BaseWeights* base) : base_(base) {}
  int64_t num_reads() const { return num_reads_; }

  StatusOr<std::vector<float>> Matrix(SiteRef site) const override {
    ++num_reads_;
    return base_->Matrix(site);
  }
  StatusOr<std::vector<float>> Bias(SiteRef site) const override {
    ++num_reads_;
    return base_->Bias(site);
  }
  StatusOr<NormVectors> Norm(int64_t layer, NormSite site) const override {
    ++num_reads_;
    return base_->Norm(layer, site);
  }
  // Not counted: it checks the base, nothing is computed from it.
  StatusOr<Digest> WeightsDigest() const override { return base_->WeightsDigest(); }
  StatusOr<std::vector<double>> RowSquares(SiteRef site, int64_t in) const override {
    ++num_reads_;
    return base_->RowSquares(site, in);
  }
  StatusOr<std::vector<float>> Products(SiteRef site, const TensorView& inputs) const override {
    ++num_reads_;
    return base_->Products(site, inputs);
  }

 private:
  const BaseWeights* base_;
  mutable int64_t num_reads_ = 0;  // one lowering, one thread
};

// The table's key for a directory, from its configuration.
StatusOr<std::string> TypeOf(const AdapterSource& source) {
  if (source.format() == AdapterFormat::kAdapterHub) return AdapterHubType(source.config());
  if (source.format() == AdapterFormat::kAdapterHubSetup) return std::string("setup");
  if (source.format() == AdapterFormat::kContainer) return std::string("container");
  const bool gguf = source.format() == AdapterFormat::kGguf;
  POLYAD_ASSIGN_OR_RETURN(
      const OrderedJsonFields config,
      OrderedJsonFields::Of(source.config(), gguf ? source.tensor_file() : "adapter_config.json"));
  return config.String(gguf ? "adapter.type" : "peft_type");
}

// PEFT's types that are known and not served as they are, and why.
struct Unserved {
  std::string_view type;
  std::string_view why;
};
constexpr std::string_view kExportFirst =
    "its file leaves out what it computes with; write it out with tools/export/peft_complete.py";
constexpr Unserved kUnserved[] = {
    {"FOURIERFT", kExportFirst},
    {"WAVEFT", kExportFirst},
    {"PSOFT", kExportFirst},
    {"ADAMSS", kExportFirst},
    {"SHADOW", "it is a second network with a cache of its own, no change of this one"}};

std::string WhyUnserved(std::string_view type) {
  for (const Unserved& unserved : kUnserved) {
    if (unserved.type == type) return ": " + std::string(unserved.why);
  }
  return "";
}

bool ChangesNothing(const AdapterProgram& program) {
  return program.ops.empty() && program.embedding_ops.empty() && program.norms.empty() &&
         program.hooks.empty() && program.stream_ops.empty() && !program.soft_prompt &&
         program.gated_prefixes.empty() && program.couplings.empty() && program.routers.empty();
}

}  // namespace

std::span<const Family> FamilyTable() { return kFamilies; }

StatusOr<AdapterProgram> LowerAdapter(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const std::string type, TypeOf(source));
  for (const Family& family : FamilyTable()) {
    if (family.format != source.format() || family.type != type) continue;
    const CountedBaseWeights counted(context.base);
    POLYAD_RETURN_IF_ERROR(CheckBelongs(kBaseRecord, source.base_digest(), context));
    if (source.format() == AdapterFormat::kPeft) {
      POLYAD_RETURN_IF_ERROR(CheckReplacementConfig(source, context.spec));
    }
    POLYAD_ASSIGN_OR_RETURN(std::optional<OwnRope> rope, ReadOwnRope(source, context));
    ModelSpec spec = context.spec;
    if (rope) spec.rope = rope->rope;
    if (rope) spec.max_position = rope->max_position;
    const LoweringContext lowering{spec, context.base == nullptr ? nullptr : &counted,
                                   context.options, context.max_context};
    POLYAD_ASSIGN_OR_RETURN(AdapterProgram program, family.lower(source, lowering));
    if (source.format() == AdapterFormat::kPeft) {
      POLYAD_RETURN_IF_ERROR(LowerReplacements(source, lowering, program));
    }
    program.rope = std::move(rope);
    if (program.rope && !program.invocation_tokens.empty()) {
      return Unimplemented(
          "config.json: another rotary scaling is not served with an activated adapter, which "
          "shares "
          "the base's keys before its invocation");
    }
    program.read_base = counted.num_reads() > 0;
    POLYAD_RETURN_IF_ERROR(source.CheckAllTaken());
    POLYAD_RETURN_IF_ERROR(lowering.CheckAllTaken());
    if (ChangesNothing(program)) {
      return InvalidArgument("%s: no tensor changes the model", source.tensor_file());
    }
    if (program.family.empty()) program.family = type;  // a container says its own
    return program;
  }
  if (source.format() == AdapterFormat::kAdapterHub) {
    return Unimplemented("adapter_config.json: AdapterHub's %s adapters are not served", type);
  }
  if (source.format() == AdapterFormat::kGguf) {
    return Unimplemented("%s: adapter.type '%s' is not served", source.tensor_file(), type);
  }
  return Unimplemented("adapter_config.json: peft_type '%s' is not served%s", type,
                       WhyUnserved(type));
}

}  // namespace polyad
