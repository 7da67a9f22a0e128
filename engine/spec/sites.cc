#include "engine/spec/sites.h"

#include <charconv>
#include <optional>
#include <span>

#include "engine/base/check.h"
#include "engine/io/quote.h"

namespace polyad {

namespace {

struct ModuleName {
  std::string_view name;
  Site site;
};

constexpr ModuleName kLlamaLayer[] = {
    {"self_attn.q_proj", Site::kQ}, {"self_attn.k_proj", Site::kK}, {"self_attn.v_proj", Site::kV},
    {"self_attn.o_proj", Site::kO}, {"mlp.gate_proj", Site::kGate}, {"mlp.up_proj", Site::kUp},
    {"mlp.down_proj", Site::kDown},
};
constexpr ModuleName kLlamaModel[] = {{"model.embed_tokens", Site::kEmbed},
                                      {"lm_head", Site::kHead}};
constexpr ModuleName kGpt2Layer[] = {
    {"attn.c_attn", Site::kQkv},
    {"attn.c_proj", Site::kO},
    {"mlp.c_fc", Site::kFcIn},
    {"mlp.c_proj", Site::kFcOut},
};
constexpr ModuleName kGpt2Model[] = {{"transformer.wte", Site::kEmbed}, {"lm_head", Site::kHead}};

struct ModuleTable {
  std::string_view layer_prefix;
  std::span<const ModuleName> layer;
  std::span<const ModuleName> model;
};

ModuleTable TableOf(Architecture architecture) {
  switch (architecture) {
    case Architecture::kLlama:
    case Architecture::kMistral:
    case Architecture::kQwen2:
    case Architecture::kQwen3:
      return {"model.layers.", kLlamaLayer, kLlamaModel};
    case Architecture::kGpt2:
      return {"transformer.h.", kGpt2Layer, kGpt2Model};
  }
  return {};
}

const ModuleName* FindName(std::span<const ModuleName> names, std::string_view name) {
  for (const ModuleName& entry : names) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

// "12.mlp.up_proj" -> 12, leaving "mlp.up_proj"; only the canonical spelling of a number counts.
std::optional<int64_t> TakeIndex(std::string_view& text) {
  int64_t index = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, index);
  if (error != std::errc() || stop == end || *stop != '.' || index < 0) return std::nullopt;
  const auto digits = static_cast<size_t>(stop - text.data());
  if ((text[0] == '0' && digits > 1) || text[0] == '-') return std::nullopt;
  text.remove_prefix(digits + 1);
  return index;
}

}  // namespace

std::string_view SiteName(Site site) {
  switch (site) {
    case Site::kQ:
      return "q";
    case Site::kK:
      return "k";
    case Site::kV:
      return "v";
    case Site::kQkv:
      return "qkv";
    case Site::kO:
      return "o";
    case Site::kGate:
      return "gate";
    case Site::kUp:
      return "up";
    case Site::kDown:
      return "down";
    case Site::kFcIn:
      return "fc_in";
    case Site::kFcOut:
      return "fc_out";
    case Site::kHead:
      return "head";
    case Site::kEmbed:
      return "embed";
  }
  return "?";
}

bool HasSite(const ModelSpec& spec, Site site) {
  switch (site) {
    case Site::kQ:
    case Site::kK:
    case Site::kV:
      return !spec.fused_qkv;
    case Site::kQkv:
      return spec.fused_qkv;
    case Site::kGate:
    case Site::kUp:
    case Site::kDown:
      return spec.gated_mlp;
    case Site::kFcIn:
    case Site::kFcOut:
      return !spec.gated_mlp;
    case Site::kO:
    case Site::kHead:
    case Site::kEmbed:
      return true;
  }
  return false;
}

SiteShape ShapeOf(const ModelSpec& spec, Site site) {
  POLYAD_CHECK(HasSite(spec, site), "the model has this site");
  const int64_t hidden = spec.hidden_size;
  const int64_t inner = spec.intermediate_size;
  switch (site) {
    case Site::kQ:
      return {spec.QueryWidth(), hidden, 0};
    case Site::kK:
      return {spec.KvWidth(), hidden, spec.QueryWidth()};
    case Site::kV:
      return {spec.KvWidth(), hidden, spec.QueryWidth() + spec.KvWidth()};
    case Site::kQkv:
      return {spec.QueryWidth() + 2 * spec.KvWidth(), hidden, 0};
    case Site::kO:
      return {hidden, spec.QueryWidth(), 0};
    case Site::kGate:
      return {inner, hidden, 0};
    case Site::kUp:
      return {inner, hidden, inner};
    case Site::kDown:
      return {hidden, inner, 0};
    case Site::kFcIn:
      return {inner, hidden, 0};
    case Site::kFcOut:
      return {hidden, inner, 0};
    case Site::kHead:
    case Site::kEmbed:
      return {spec.vocab_size, hidden, 0};
  }
  return {};
}

std::vector<Site> LayerSites(const ModelSpec& spec) {
  std::vector<Site> sites;
  for (const ModuleName& entry : TableOf(spec.architecture).layer) sites.push_back(entry.site);
  return sites;
}

StatusOr<SiteRef> ResolveModulePath(const ModelSpec& spec, std::string_view module_path) {
  const ModuleTable table = TableOf(spec.architecture);
  if (const ModuleName* entry = FindName(table.model, module_path)) return SiteRef{-1, entry->site};
  std::string_view rest = module_path;
  if (rest.starts_with(table.layer_prefix)) {
    rest.remove_prefix(table.layer_prefix.size());
    if (const std::optional<int64_t> layer = TakeIndex(rest)) {
      if (*layer >= spec.num_layers) {
        return NotFound("module %s: the model has %d layers", Quote(module_path), spec.num_layers);
      }
      if (const ModuleName* entry = FindName(table.layer, rest))
        return SiteRef{*layer, entry->site};
    }
  }
  return NotFound("module %s is no linear module of this %s model", Quote(module_path),
                  ArchitectureName(spec.architecture));
}

std::string ModulePath(const ModelSpec& spec, SiteRef ref) {
  const ModuleTable table = TableOf(spec.architecture);
  const bool of_layer = ref.layer >= 0;
  for (const ModuleName& entry : of_layer ? table.layer : table.model) {
    if (entry.site != ref.site) continue;
    if (!of_layer) return std::string(entry.name);
    return absl::StrFormat("%s%d.%s", table.layer_prefix, ref.layer, entry.name);
  }
  return std::string(SiteName(ref.site));
}

}  // namespace polyad
