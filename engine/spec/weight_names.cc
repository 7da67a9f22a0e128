#include "engine/spec/weight_names.h"

#include <span>
#include <string_view>

#include "absl/strings/str_format.h"
#include "engine/base/check.h"

namespace polyad {

namespace {

struct NameRow {
  WeightKind kind;
  std::string_view name;  // after the layer's prefix for weights of a layer
};

constexpr NameRow kLlamaHuggingFace[] = {
    {WeightKind::kEmbed, "model.embed_tokens.weight"},
    {WeightKind::kFinalNorm, "model.norm.weight"},
    {WeightKind::kHead, "lm_head.weight"},
    {WeightKind::kAttnNorm, "input_layernorm.weight"},
    {WeightKind::kMlpNorm, "post_attention_layernorm.weight"},
    {WeightKind::kQNorm, "self_attn.q_norm.weight"},
    {WeightKind::kKNorm, "self_attn.k_norm.weight"},
    {WeightKind::kQ, "self_attn.q_proj.weight"},
    {WeightKind::kK, "self_attn.k_proj.weight"},
    {WeightKind::kV, "self_attn.v_proj.weight"},
    {WeightKind::kO, "self_attn.o_proj.weight"},
    {WeightKind::kGate, "mlp.gate_proj.weight"},
    {WeightKind::kUp, "mlp.up_proj.weight"},
    {WeightKind::kDown, "mlp.down_proj.weight"},
    {WeightKind::kQBias, "self_attn.q_proj.bias"},
    {WeightKind::kKBias, "self_attn.k_proj.bias"},
    {WeightKind::kVBias, "self_attn.v_proj.bias"},
    {WeightKind::kOBias, "self_attn.o_proj.bias"},
    {WeightKind::kGateBias, "mlp.gate_proj.bias"},
    {WeightKind::kUpBias, "mlp.up_proj.bias"},
    {WeightKind::kDownBias, "mlp.down_proj.bias"},
};

constexpr NameRow kGpt2HuggingFace[] = {
    {WeightKind::kEmbed, "transformer.wte.weight"},
    {WeightKind::kPositions, "transformer.wpe.weight"},
    {WeightKind::kFinalNorm, "transformer.ln_f.weight"},
    {WeightKind::kFinalNormBias, "transformer.ln_f.bias"},
    {WeightKind::kHead, "lm_head.weight"},
    {WeightKind::kAttnNorm, "ln_1.weight"},
    {WeightKind::kAttnNormBias, "ln_1.bias"},
    {WeightKind::kMlpNorm, "ln_2.weight"},
    {WeightKind::kMlpNormBias, "ln_2.bias"},
    {WeightKind::kQkv, "attn.c_attn.weight"},
    {WeightKind::kO, "attn.c_proj.weight"},
    {WeightKind::kFcIn, "mlp.c_fc.weight"},
    {WeightKind::kFcOut, "mlp.c_proj.weight"},
    {WeightKind::kQkvBias, "attn.c_attn.bias"},
    {WeightKind::kOBias, "attn.c_proj.bias"},
    {WeightKind::kFcInBias, "mlp.c_fc.bias"},
    {WeightKind::kFcOutBias, "mlp.c_proj.bias"},
};

constexpr NameRow kGguf[] = {
    {WeightKind::kEmbed, "token_embd.weight"},
    {WeightKind::kPositions, "position_embd.weight"},
    {WeightKind::kFinalNorm, "output_norm.weight"},
    {WeightKind::kFinalNormBias, "output_norm.bias"},
    {WeightKind::kHead, "output.weight"},
    {WeightKind::kAttnNorm, "attn_norm.weight"},
    {WeightKind::kAttnNormBias, "attn_norm.bias"},
    {WeightKind::kMlpNorm, "ffn_norm.weight"},
    {WeightKind::kMlpNormBias, "ffn_norm.bias"},
    {WeightKind::kQNorm, "attn_q_norm.weight"},
    {WeightKind::kKNorm, "attn_k_norm.weight"},
    {WeightKind::kQ, "attn_q.weight"},
    {WeightKind::kK, "attn_k.weight"},
    {WeightKind::kV, "attn_v.weight"},
    {WeightKind::kQkv, "attn_qkv.weight"},
    {WeightKind::kO, "attn_output.weight"},
    {WeightKind::kGate, "ffn_gate.weight"},
    {WeightKind::kUp, "ffn_up.weight"},
    {WeightKind::kDown, "ffn_down.weight"},
    {WeightKind::kFcIn, "ffn_up.weight"},
    {WeightKind::kFcOut, "ffn_down.weight"},
    {WeightKind::kQBias, "attn_q.bias"},
    {WeightKind::kKBias, "attn_k.bias"},
    {WeightKind::kVBias, "attn_v.bias"},
    {WeightKind::kQkvBias, "attn_qkv.bias"},
    {WeightKind::kOBias, "attn_output.bias"},
    {WeightKind::kGateBias, "ffn_gate.bias"},
    {WeightKind::kUpBias, "ffn_up.bias"},
    {WeightKind::kDownBias, "ffn_down.bias"},
    {WeightKind::kFcInBias, "ffn_up.bias"},
    {WeightKind::kFcOutBias, "ffn_down.bias"},
};

struct NameTable {
  std::string_view layer_prefix;
  std::span<const NameRow> rows;
};

NameTable TableOf(Architecture architecture, WeightFormat format) {
  if (format == WeightFormat::kGguf) return {"blk.", kGguf};
  if (architecture == Architecture::kGpt2) return {"transformer.h.", kGpt2HuggingFace};
  return {"model.layers.", kLlamaHuggingFace};
}

bool IsMatrixOfLayer(WeightKind kind) {
  return kind >= WeightKind::kQ && kind <= WeightKind::kFcOut;
}

// Collects the entries of one spec in one format.
class Planner {
 public:
  Planner(const ModelSpec& spec, WeightFormat format)
      : spec_(spec), format_(format), table_(TableOf(spec.architecture, format)) {}

  std::vector<WeightEntry> Plan() {
    const bool layer_norm = spec_.norm == NormKind::kLayer;
    Add(-1, WeightKind::kEmbed, {spec_.vocab_size, spec_.hidden_size});
    if (spec_.learned_positions) {
      Add(-1, WeightKind::kPositions, {spec_.max_position, spec_.hidden_size});
    }
    for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
      AddNorm(layer, WeightKind::kAttnNorm, WeightKind::kAttnNormBias);
      AddAttention(layer);
      AddNorm(layer, WeightKind::kMlpNorm, WeightKind::kMlpNormBias);
      AddMlp(layer);
    }
    Add(-1, WeightKind::kFinalNorm, {spec_.hidden_size});
    if (layer_norm) Add(-1, WeightKind::kFinalNormBias, {spec_.hidden_size});
    if (!spec_.tie_embeddings) Add(-1, WeightKind::kHead, {spec_.vocab_size, spec_.hidden_size});
    return std::move(entries_);
  }

 private:
  void AddNorm(int64_t layer, WeightKind weight, WeightKind bias) {
    Add(layer, weight, {spec_.hidden_size});
    if (spec_.norm == NormKind::kLayer) Add(layer, bias, {spec_.hidden_size});
  }

  void AddAttention(int64_t layer) {
    if (spec_.fused_qkv) {
      AddLinear(layer, Site::kQkv, WeightKind::kQkv, WeightKind::kQkvBias, spec_.qkv_bias);
    } else {
      AddLinear(layer, Site::kQ, WeightKind::kQ, WeightKind::kQBias, spec_.qkv_bias);
      AddLinear(layer, Site::kK, WeightKind::kK, WeightKind::kKBias, spec_.qkv_bias);
      AddLinear(layer, Site::kV, WeightKind::kV, WeightKind::kVBias, spec_.qkv_bias);
    }
    if (spec_.qk_norm) {
      Add(layer, WeightKind::kQNorm, {spec_.head_dim});
      Add(layer, WeightKind::kKNorm, {spec_.head_dim});
    }
    AddLinear(layer, Site::kO, WeightKind::kO, WeightKind::kOBias, spec_.o_bias);
  }

  void AddMlp(int64_t layer) {
    if (spec_.gated_mlp) {
      AddLinear(layer, Site::kGate, WeightKind::kGate, WeightKind::kGateBias, spec_.mlp_bias);
      AddLinear(layer, Site::kUp, WeightKind::kUp, WeightKind::kUpBias, spec_.mlp_bias);
      AddLinear(layer, Site::kDown, WeightKind::kDown, WeightKind::kDownBias, spec_.mlp_bias);
    } else {
      AddLinear(layer, Site::kFcIn, WeightKind::kFcIn, WeightKind::kFcInBias, spec_.mlp_bias);
      AddLinear(layer, Site::kFcOut, WeightKind::kFcOut, WeightKind::kFcOutBias, spec_.mlp_bias);
    }
  }

  void AddLinear(int64_t layer, Site site, WeightKind weight, WeightKind bias, bool has_bias) {
    const SiteShape shape = ShapeOf(spec_, site);
    Add(layer, weight, {shape.out, shape.in});
    if (has_bias) Add(layer, bias, {shape.out});
  }

  void Add(int64_t layer, WeightKind kind, std::vector<int64_t> shape) {
    WeightEntry entry;
    entry.kind = kind;
    entry.layer = layer;
    entry.shape = std::move(shape);
    for (const NameRow& row : table_.rows) {
      if (row.kind != kind) continue;
      entry.tensor_name = layer < 0
                              ? std::string(row.name)
                              : absl::StrFormat("%s%d.%s", table_.layer_prefix, layer, row.name);
    }
    POLYAD_CHECK(!entry.tensor_name.empty(), "every weight has a name");
    SetLayout(entry);
    entries_.push_back(std::move(entry));
  }

  void SetLayout(WeightEntry& entry) const {
    if (format_ == WeightFormat::kHuggingFace) {
      if (spec_.architecture == Architecture::kGpt2 && IsMatrixOfLayer(entry.kind)) {
        entry.layout = WeightLayout::kTransposed;
      }
      return;
    }
    const bool interleaved =
        spec_.architecture == Architecture::kLlama || spec_.architecture == Architecture::kMistral;
    if (!interleaved) return;
    if (entry.kind == WeightKind::kQ || entry.kind == WeightKind::kQBias) {
      entry.rotary_heads = spec_.num_heads;
    } else if (entry.kind == WeightKind::kK || entry.kind == WeightKind::kKBias) {
      entry.rotary_heads = spec_.num_kv_heads;
    } else {
      return;
    }
    entry.layout = WeightLayout::kInterleavedRows;
  }

  const ModelSpec& spec_;
  const WeightFormat format_;
  const NameTable table_;
  std::vector<WeightEntry> entries_;
};

}  // namespace

std::vector<WeightEntry> WeightPlan(const ModelSpec& spec, WeightFormat format) {
  return Planner(spec, format).Plan();
}

SiteWeights WeightsOf(Site site) {
  using K = WeightKind;
  switch (site) {
    case Site::kQ:
      return {K::kQ, K::kQBias};
    case Site::kK:
      return {K::kK, K::kKBias};
    case Site::kV:
      return {K::kV, K::kVBias};
    case Site::kQkv:
      return {K::kQkv, K::kQkvBias};
    case Site::kO:
      return {K::kO, K::kOBias};
    case Site::kGate:
      return {K::kGate, K::kGateBias};
    case Site::kUp:
      return {K::kUp, K::kUpBias};
    case Site::kDown:
      return {K::kDown, K::kDownBias};
    case Site::kFcIn:
      return {K::kFcIn, K::kFcInBias};
    case Site::kFcOut:
      return {K::kFcOut, K::kFcOutBias};
    case Site::kHead:
      return {K::kHead, K::kHead};
    case Site::kEmbed:
      break;
  }
  return {K::kEmbed, K::kEmbed};
}

bool IsIgnorableTensor(const ModelSpec& spec, const std::string& tensor_name) {
  const std::string_view name = tensor_name;
  if (name.ends_with(".rotary_emb.inv_freq") || name == "rope_freqs.weight" ||
      name == "rope_factors_short.weight" || name == "rope_factors_long.weight") {
    return true;
  }
  if (spec.architecture == Architecture::kGpt2 &&
      (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"))) {
    return true;
  }
  return spec.tie_embeddings && (name == "lm_head.weight" || name == "output.weight");
}

}  // namespace polyad
