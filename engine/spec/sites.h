#pragma once

// The linear sites of a model: where an adapter may act. A site is a (layer, name) with a shape; q,
// k and v (and gate and up) are column ranges of one fused output row, so each site also knows its
// first column there. Module paths are the names Hugging Face models give these places, which
// adapter files use ("model.layers.3.self_attn.q_proj", "transformer.h.0.attn.c_attn"). Pure
// functions of the ModelSpec. NOT_FOUND: the model has no such module, or it is no linear site.

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/spec/model_spec.h"

namespace polyad {

enum class Site {
  kQ,
  kK,
  kV,    // parts of the fused q|k|v row
  kQkv,  // all of it at once (GPT-2's c_attn)
  kO,    // attention output
  kGate,
  kUp,    // parts of the fused gate|up row
  kDown,  // gated MLP output
  kFcIn,
  kFcOut,  // plain MLP
  kHead,   // logits; layer is -1
  kEmbed,  // the token table; layer is -1
};

struct SiteShape {
  int64_t out = 0;
  int64_t in = 0;
  int64_t column = 0;  // first column in the fused output row it belongs to; else 0

  friend bool operator==(const SiteShape&, const SiteShape&) = default;
};

struct SiteRef {
  int64_t layer = -1;
  Site site = Site::kQ;

  friend auto operator<=>(const SiteRef&, const SiteRef&) = default;
};

std::string_view SiteName(Site site);  // "q"

// Whether this model has the site at all (kGate only where the MLP is gated, kQkv only where the
// file fuses it).
bool HasSite(const ModelSpec& spec, Site site);
// Shapes of weights as [out, in]; kEmbed is [vocab_size, hidden_size]. The model must have the
// site.
SiteShape ShapeOf(const ModelSpec& spec, Site site);
std::vector<Site> LayerSites(const ModelSpec& spec);  // of one layer, in the order they run

// "model.layers.3.self_attn.q_proj" -> {3, kQ}; PEFT's "base_model.model." is already stripped.
StatusOr<SiteRef> ResolveModulePath(const ModelSpec& spec, std::string_view module_path);
// The inverse, for reports.
std::string ModulePath(const ModelSpec& spec, SiteRef ref);

}  // namespace polyad
