#include "engine/adapters/adapterhub_lora.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string>
#include <utility>

#include "engine/adapters/adapterhub_gates.h"
#include "engine/adapters/row_squares.h"

namespace polyad {
namespace {

constexpr char kWhere[] = "adapter_config.json";
constexpr int64_t kMaxHubRank = 8192;
constexpr int64_t kMaxUps = 64;

struct Options {
  int64_t rank = 8;
  double alpha = 8;
  bool scales = false;  // composition_mode "scale": (IA)3
  bool dora = false;
  bool vera = false;
  bool gated = false;
  int64_t num_ups = 0;  // MTL-LoRA's up-projections; 0: a plain LoRA
  double sharpness = 1;
  std::vector<int64_t> parts;  // enabled parts of a fused projection: 0 for q, 1 for k, 2 for v
};

Status ReadMultiTask(const OrderedJsonFields& fields, Options& options) {
  POLYAD_ASSIGN_OR_RETURN(options.num_ups, fields.Int("n_up_projection", 1, kMaxUps));
  POLYAD_ASSIGN_OR_RETURN(options.sharpness, fields.Number("weights_sharpness", 1e-6, 1e6));
  POLYAD_ASSIGN_OR_RETURN(const std::string type, fields.String("task_specific_matrix_type"));
  if (type != "singular_values") {
    return Unimplemented("%s: task_specific_matrix_type '%s' is not served, nor run by the library",
                         kWhere, type.substr(0, 40));
  }
  if (options.scales || options.dora || options.vera) {
    return Unimplemented("%s: MTL-LoRA that is also (IA)3, DoRA or VeRA is not served", kWhere);
  }
  return absl::OkStatus();
}

StatusOr<Options> ReadOptions(const HubPart& part) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields fields,
                          OrderedJsonFields::Of(part.options, kWhere));
  Options options;
  POLYAD_ASSIGN_OR_RETURN(options.rank, fields.Int("r", 1, kMaxHubRank));
  POLYAD_ASSIGN_OR_RETURN(options.alpha, fields.Number("alpha", -1e9, 1e9));
  POLYAD_ASSIGN_OR_RETURN(const std::string mode, fields.String("composition_mode"));
  if (mode != "add" && mode != "scale") {
    return Unimplemented("%s: composition_mode '%s' is not served", kWhere, mode.substr(0, 40));
  }
  options.scales = mode == "scale";
  POLYAD_ASSIGN_OR_RETURN(options.dora, fields.BoolOr("use_dora", false));
  options.vera = fields.Has("vera_d") || fields.Has("vera_b");
  POLYAD_ASSIGN_OR_RETURN(options.gated, fields.BoolOr("use_gating", false));
  if (fields.Has("n_up_projection")) POLYAD_RETURN_IF_ERROR(ReadMultiTask(fields, options));
  POLYAD_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                          fields.StringsOr("attn_matrices", {}));
  constexpr std::array<const char*, 3> kNames = {"q", "k", "v"};
  for (int64_t i = 0; i < 3; ++i) {
    if (std::find(names.begin(), names.end(), kNames[static_cast<size_t>(i)]) != names.end()) {
      options.parts.push_back(i);
    }
  }
  return options;
}

HubPlace Leaf(const HubPlace& place, const std::string& leaf) {
  HubPlace at = place;
  at.leaf = leaf;
  return at;
}

StatusOr<SiteRef> SiteOf(const ModelSpec& spec, const HubTensors& tensors, const HubPlace& place) {
  const std::string layers =
      spec.architecture == Architecture::kGpt2 ? "transformer.h." : "model.layers.";
  const std::string path = layers + std::to_string(place.layer) + "." + place.module;
  StatusOr<SiteRef> site = ResolveModulePath(spec, path);
  if (site.ok()) return site;
  return FailedPrecondition("tensor %s: the base model has no linear module of this name",
                            tensors.NameOf(Leaf(place, "lora_B")));
}

StatusOr<Matrix> TakeAs(HubTensors& tensors, const HubPlace& place, int64_t rows, int64_t cols) {
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> values, tensors.Take(place, {rows, cols}));
  return Matrix(rows, cols, std::move(values));
}

// [enabled * width, ...] rows spread to their place among three times `width` rows.
Matrix SpreadRows(const Matrix& packed, const std::vector<int64_t>& parts, int64_t width,
                  bool block_diagonal) {
  const int64_t rank = packed.cols;
  const auto count = static_cast<int64_t>(parts.size());
  Matrix spread(3 * width, block_diagonal ? count * rank : rank);
  for (int64_t part = 0; part < count; ++part) {
    for (int64_t row = 0; row < width; ++row) {
      const float* from = packed.Row(part * width + row);
      float* to = spread.Row(parts[static_cast<size_t>(part)] * width + row);
      std::copy(from, from + rank, to + (block_diagonal ? part * rank : 0));
    }
  }
  return spread;
}

class Reader {
 public:
  Reader(HubTensors& tensors, const Options& options, const LoweringContext& context)
      : tensors_(tensors), options_(options), context_(context) {}

  StatusOr<HubLora> Read(const HubPlace& place) {
    HubLora lora;
    POLYAD_ASSIGN_OR_RETURN(lora.site, SiteOf(context_.spec, tensors_, place));
    const SiteShape shape = ShapeOf(context_.spec, lora.site.site);
    const bool fused = lora.site.site == Site::kQkv;
    if (fused && options_.parts.empty()) {
      return InvalidArgument("%s: attn_matrices names none of q, k, v", kWhere);
    }
    if (options_.gated) {
      const int64_t count = fused ? static_cast<int64_t>(options_.parts.size()) : 1;
      POLYAD_ASSIGN_OR_RETURN(lora.gates,
                              ReadGates(tensors_, Leaf(place, "gate"), {count, shape.in}));
      if (fused) lora.parts = options_.parts;
    }
    if (options_.scales) {
      POLYAD_RETURN_IF_ERROR(ReadScale(place, shape.out, fused, lora));
      return lora;
    }
    if (options_.vera) {
      POLYAD_RETURN_IF_ERROR(ReadVera(place, shape, lora));
    } else if (options_.num_ups > 0) {
      POLYAD_RETURN_IF_ERROR(ReadMultiTaskFactors(place, shape, fused, lora));
    } else {
      POLYAD_RETURN_IF_ERROR(ReadFactors(place, shape, fused, lora));
    }
    if (options_.dora) POLYAD_RETURN_IF_ERROR(ReadMagnitude(place, shape, fused, lora));
    if (!options_.gated) Scale(lora.up, options_.alpha / static_cast<double>(options_.rank));
    return lora;
  }

 private:
  Status ReadScale(const HubPlace& place, int64_t out, bool fused, HubLora& lora) {
    const float alpha = options_.gated ? 1.0f : static_cast<float>(options_.alpha);
    const auto parts = static_cast<int64_t>(options_.parts.size());
    const int64_t rows = fused ? out / 3 * parts : out;
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> l,
                            tensors_.Take(Leaf(place, "lora_B"), {rows, 1}));
    lora.scale.assign(static_cast<size_t>(out), alpha);
    const int64_t width = fused ? out / 3 : out;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t part = fused ? options_.parts[static_cast<size_t>(row / width)] : 0;
      lora.scale[static_cast<size_t>(part * width + row % width)] =
          alpha * l[static_cast<size_t>(row)];
    }
    return absl::OkStatus();
  }

  Status ReadFactors(const HubPlace& place, const SiteShape& shape, bool fused, HubLora& lora) {
    const int64_t parts = fused ? static_cast<int64_t>(options_.parts.size()) : 1;
    const int64_t width = fused ? shape.out / 3 : shape.out;
    POLYAD_ASSIGN_OR_RETURN(
        lora.down, TakeAs(tensors_, Leaf(place, "lora_A"), parts * options_.rank, shape.in));
    POLYAD_ASSIGN_OR_RETURN(lora.up,
                            TakeAs(tensors_, Leaf(place, "lora_B"), parts * width, options_.rank));
    if (fused) lora.up = SpreadRows(lora.up, options_.parts, width, /*block_diagonal=*/true);
    return absl::OkStatus();
  }

  // y += s (sum over i of w_i B_i) D A x, with w the softmax of the weights by their sharpness and
  // D the task's own diagonal matrix (MTL-LoRA: Yang et al. 2024).
  Status ReadMultiTaskFactors(const HubPlace& place, const SiteShape& shape, bool fused,
                              HubLora& lora) {
    if (fused) return Unimplemented("%s: MTL-LoRA of GPT-2's c_attn is not served", kWhere);
    const int64_t rank = options_.rank;
    POLYAD_ASSIGN_OR_RETURN(lora.down, TakeAs(tensors_, Leaf(place, "lora_A"), rank, shape.in));
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> values,
                            tensors_.Take(Leaf(place, "task_specific.values"), {rank}));
    for (int64_t k = 0; k < rank; ++k) {
      for (int64_t i = 0; i < shape.in; ++i) lora.down.At(k, i) *= values[static_cast<size_t>(k)];
    }
    POLYAD_ASSIGN_OR_RETURN(
        const std::vector<float> ups,
        tensors_.Take(Leaf(place, "lora_B"), {options_.num_ups, shape.out, rank}));
    POLYAD_ASSIGN_OR_RETURN(const std::vector<double> weights, UpWeights(place));
    lora.up = Matrix(shape.out, rank);
    const size_t each = lora.up.values.size();
    for (size_t i = 0; i < each; ++i) {
      double sum = 0;
      for (size_t up = 0; up < weights.size(); ++up) {
        sum += weights[up] * static_cast<double>(ups[up * each + i]);
      }
      lora.up.values[i] = static_cast<float>(sum);
    }
    return absl::OkStatus();
  }

  StatusOr<std::vector<double>> UpWeights(const HubPlace& place) {
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> stored,
                            tensors_.Take(Leaf(place, "weights"), {options_.num_ups}));
    const auto largest = static_cast<double>(*std::max_element(stored.begin(), stored.end()));
    std::vector<double> weights;
    double sum = 0;
    for (const float weight : stored) {
      weights.push_back(std::exp((static_cast<double>(weight) - largest) / options_.sharpness));
      sum += weights.back();
    }
    for (double& weight : weights) weight /= sum;
    return weights;
  }

  // y += s E B D A x, with A and B shared by all modules and sized by the first.
  Status ReadVera(const HubPlace& place, const SiteShape& shape, HubLora& lora) {
    const int64_t rank = options_.rank;
    const HubPlace shared{-1, "", "shared_parameters", ""};
    POLYAD_ASSIGN_OR_RETURN(const Matrix a,
                            TakeAs(tensors_, Leaf(shared, "lora_A"), rank, shape.in));
    POLYAD_ASSIGN_OR_RETURN(const Matrix b,
                            TakeAs(tensors_, Leaf(shared, "lora_B"), shape.out, rank));
    POLYAD_ASSIGN_OR_RETURN(const Matrix d, TakeAs(tensors_, Leaf(place, "vera_D"), rank, rank));
    POLYAD_ASSIGN_OR_RETURN(const Matrix e,
                            TakeAs(tensors_, Leaf(place, "vera_B"), shape.out, shape.out));
    lora.down = Multiply(d, a);
    lora.up = Multiply(e, b);
    return absl::OkStatus();
  }

  // c = m / |W + BA| by rows, without the scale; then y = c (W x + b + s BA x).
  Status ReadMagnitude(const HubPlace& place, const SiteShape& shape, bool fused, HubLora& lora) {
    if (context_.spec.architecture == Architecture::kGpt2) return IgnoreMagnitude(place, fused);
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> m,
                            tensors_.Take(Leaf(place, "m.weight"), {shape.out, 1}));
    POLYAD_ASSIGN_OR_RETURN(const ChangedRows rows,
                            ChangedRowSquares(context_, lora.site, lora.up, lora.down));
    const std::vector<double>& squares = rows.sum;
    for (size_t row = 0; row < squares.size(); ++row) {
      if (!(squares[row] > 0)) {
        return InvalidArgument("tensor %s: row %d of the adapted weight is zero",
                               tensors_.NameOf(Leaf(place, "m.weight")), row);
      }
      lora.scale.push_back(static_cast<float>(m[row] / std::sqrt(squares[row])));
    }
    return absl::OkStatus();
  }

  // On GPT-2's fused projection the library stores magnitudes and never reads them; elsewhere it
  // fails.
  Status IgnoreMagnitude(const HubPlace& place, bool fused) {
    if (!fused || options_.parts.size() != 1) {
      return Unimplemented("%s: use_dora: on GPT-2 the library runs one of q, k, v alone", kWhere);
    }
    return tensors_.Take(Leaf(place, "m.weight"), {context_.spec.hidden_size, 1}).status();
  }

  HubTensors& tensors_;
  const Options& options_;
  const LoweringContext& context_;
};

// Every layer that is not left out has the same modules.
Status CheckComplete(const std::vector<HubPlace>& places, const HubPart& part,
                     const ModelSpec& spec) {
  std::set<std::string> modules;
  std::set<std::pair<int64_t, std::string>> present;
  for (const HubPlace& place : places) {
    modules.insert(place.module);
    present.emplace(place.layer, place.module);
  }
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    if (part.LeavesOut(layer)) continue;
    for (const std::string& module : modules) {
      if (present.count({layer, module}) > 0) continue;
      return InvalidArgument("layer %d: %s has no LoRA, as it has in other layers", layer, module);
    }
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<std::vector<HubLora>> ReadHubLoras(HubTensors& tensors, const HubPart& part,
                                            const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const Options options, ReadOptions(part));
  std::vector<HubPlace> places;
  for (HubPlace& place : tensors.PlacesOf("loras")) {
    if (place.layer >= 0 && !part.LeavesOut(place.layer)) places.push_back(std::move(place));
  }
  POLYAD_RETURN_IF_ERROR(CheckComplete(places, part, context.spec));
  Reader reader(tensors, options, context);
  std::vector<HubLora> loras;
  for (const HubPlace& place : places) {
    POLYAD_ASSIGN_OR_RETURN(HubLora lora, reader.Read(place));
    loras.push_back(std::move(lora));
  }
  return loras;
}

}  // namespace polyad
