// LoRA as a GGUF file (adapter.gguf): pairs "<matrix>.lora_a" [rank, in] and "<matrix>.lora_b"
// [out, rank] under the GGUF name of the matrix they change, y += alpha / rank B (A x) with one
// alpha for all. What is done to a matrix's rows on its way to GGUF was done to B's: llama's rows
// of q and k stand for interleaved rotary pairs and are put back. Lowers to LowRank. Source:
// llama.cpp's convert_lora_to_gguf and llama-adapter; zoo section 5.1.

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/spec/weight_names.h"

namespace polyad {
namespace {

constexpr std::string_view kSuffixA = ".lora_a";
constexpr std::string_view kSuffixB = ".lora_b";

struct Target {
  SiteRef site;
  int64_t rotary_heads = 0;  // of rows to put back; 0: none
};

std::optional<Site> SiteOf(WeightKind kind) {
  switch (kind) {
    case WeightKind::kQ:
      return Site::kQ;
    case WeightKind::kK:
      return Site::kK;
    case WeightKind::kV:
      return Site::kV;
    case WeightKind::kQkv:
      return Site::kQkv;
    case WeightKind::kO:
      return Site::kO;
    case WeightKind::kGate:
      return Site::kGate;
    case WeightKind::kUp:
      return Site::kUp;
    case WeightKind::kDown:
      return Site::kDown;
    case WeightKind::kFcIn:
      return Site::kFcIn;
    case WeightKind::kFcOut:
      return Site::kFcOut;
    case WeightKind::kHead:
      return Site::kHead;
    default:
      return std::nullopt;
  }
}

std::unordered_map<std::string, Target> TargetsOf(const ModelSpec& spec) {
  std::unordered_map<std::string, Target> targets;
  for (const WeightEntry& entry : WeightPlan(spec, WeightFormat::kGguf)) {
    const std::optional<Site> site = SiteOf(entry.kind);
    if (!site) continue;
    const bool interleaved = entry.layout == WeightLayout::kInterleavedRows;
    targets.emplace(entry.tensor_name,
                    Target{{entry.layer, *site}, interleaved ? entry.rotary_heads : 0});
  }
  return targets;
}

// "llama" covers Mistral in GGUF.
Status CheckArchitecture(const OrderedJsonFields& config, Architecture architecture) {
  POLYAD_ASSIGN_OR_RETURN(const std::string name, config.String("general.architecture"));
  const bool like_llama =
      architecture == Architecture::kLlama || architecture == Architecture::kMistral;
  const std::string expected = like_llama ? "llama" : ArchitectureName(architecture);
  if (name == expected) return absl::OkStatus();
  return FailedPrecondition(
      "%s: key 'general.architecture': expected '%s', got '%s': made for another base model",
      config.where(), expected, name);
}

// Row i of each head's two halves from rows 2i and 2i + 1.
Matrix SplitRotaryRows(const Matrix& m, int64_t heads) {
  const int64_t head_rows = m.rows / heads;
  Matrix result(m.rows, m.cols);
  for (int64_t row = 0; row < m.rows; ++row) {
    const int64_t in_head = row % head_rows;
    const int64_t target = row - in_head + in_head % 2 * (head_rows / 2) + in_head / 2;
    std::copy(m.Row(row), m.Row(row) + m.cols, result.Row(target));
  }
  return result;
}

}  // namespace

StatusOr<AdapterProgram> LowerGgufLora(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config,
                          OrderedJsonFields::Of(source.config(), source.tensor_file()));
  POLYAD_RETURN_IF_ERROR(CheckArchitecture(config, context.spec.architecture));
  POLYAD_ASSIGN_OR_RETURN(const double alpha, config.Number("adapter.lora.alpha", -1e9, 1e9));
  const std::unordered_map<std::string, Target> targets = TargetsOf(context.spec);
  AdapterProgram program;
  for (const std::string& name : source.RemainingNames()) {
    const bool is_a = name.ends_with(kSuffixA);
    if (!is_a && !name.ends_with(kSuffixB)) continue;
    const std::string matrix = name.substr(0, name.size() - kSuffixA.size());
    if (!is_a && source.Has(matrix + std::string(kSuffixA))) continue;
    const auto found = targets.find(matrix);
    if (found == targets.end()) {
      return FailedPrecondition("tensor %s: the base model has no linear module of this name",
                                name);
    }
    const SiteShape shape = ShapeOf(context.spec, found->second.site.site);
    POLYAD_ASSIGN_OR_RETURN(
        FloatTensor a, TakeFloats(source, matrix + std::string(kSuffixA), {kAnySize, shape.in}));
    POLYAD_ASSIGN_OR_RETURN(const int64_t rank, CheckRank(matrix, static_cast<double>(a.Dim(0))));
    POLYAD_ASSIGN_OR_RETURN(FloatTensor stored,
                            TakeFloats(source, matrix + std::string(kSuffixB), {shape.out, rank}));
    Matrix b = std::move(stored).AsMatrix();
    if (found->second.rotary_heads > 0) b = SplitRotaryRows(b, found->second.rotary_heads);
    Scale(b, alpha / static_cast<double>(rank));
    AddLowRank(program, found->second.site, std::move(a).AsMatrix(), std::move(b));
  }
  return program;
}

}  // namespace polyad
