// ReFT: on a layer's output h, at chosen positions, h += R' (act(W h + b) - R h). LoReFT stores R
// as an orthogonal parametrisation, NoReFT and DiReFT as it is (a DiReFT file loads back as one
// that subtracts: its flag is not saved). The prefix's unit acts on text positions below
// prefix_positions, the suffix's on a segment's last suffix_positions rows and before the prefix's
// where they meet. Source: zoo section 10.2; adapters 1.3.0, methods/reft.py; torch 2.13,
// nn/utils/parametrizations.py (_Orthogonal, householder).

#include <algorithm>
#include <string>
#include <utility>

#include "engine/adapters/adapterhub_bottleneck.h"
#include "engine/adapters/dense_math.h"
#include "engine/adapters/families/adapterhub_parts.h"

namespace polyad {
namespace {

constexpr char kWhere[] = "adapter_config.json";
constexpr int64_t kMaxReftRank = 8192;
constexpr int64_t kMaxPositions = int64_t{1} << 20;

struct Options {
  int64_t rank = 1;
  int64_t num_first = 0;
  int64_t num_last = 0;
  bool orthogonal = false;
  bool tied = false;
  ActivationKind activation = ActivationKind::kIdentity;
};

StatusOr<Options> ReadOptions(const OrderedJsonFields& fields) {
  Options options;
  POLYAD_ASSIGN_OR_RETURN(options.rank, fields.Int("r", 1, kMaxReftRank));
  POLYAD_ASSIGN_OR_RETURN(options.num_first, fields.Int("prefix_positions", 0, kMaxPositions));
  POLYAD_ASSIGN_OR_RETURN(options.num_last, fields.Int("suffix_positions", 0, kMaxPositions));
  POLYAD_ASSIGN_OR_RETURN(options.orthogonal, fields.BoolOr("orthogonality", true));
  POLYAD_ASSIGN_OR_RETURN(options.tied, fields.BoolOr("tied_weights", false));
  POLYAD_ASSIGN_OR_RETURN(const bool subtracts, fields.BoolOr("subtract_projection", true));
  if (!subtracts) {
    return Unimplemented("%s: subtract_projection = false is not served", kWhere);
  }
  const OrderedJson* activation = fields.Find("non_linearity");
  if (activation != nullptr && !activation->is_null()) {
    POLYAD_ASSIGN_OR_RETURN(options.activation, ReadHubActivation(fields));
  }
  return options;
}

// Whether `layers` ("all" or a list) names this one.
StatusOr<bool> Names(const OrderedJsonFields& fields, int64_t layer) {
  const OrderedJson* layers = fields.Find("layers");
  if (layers != nullptr && *layers == "all") return true;
  if (layers == nullptr || !layers->is_array()) {
    return InvalidArgument("%s: layers: expected \"all\" or a list of numbers", kWhere);
  }
  POLYAD_RETURN_IF_ERROR(CheckLayerNumbers(*layers, "layers"));
  return std::any_of(layers->begin(), layers->end(),
                     [layer](const OrderedJson& value) { return value.get<int64_t>() == layer; });
}

// The first `rank` columns of the product of Householder reflections I - tau_j v_j v_j', where v_j
// is column j of X below its diagonal, one on it and zero above, and tau_j = 2 / |v_j|^2; columns
// with a negative diagonal of X turned round. X is [hidden, rank].
Matrix Householder(const Matrix& x) {
  Matrix q(x.rows, x.cols);
  std::vector<double> column(static_cast<size_t>(x.rows));
  for (int64_t c = 0; c < x.cols; ++c) {
    std::fill(column.begin(), column.end(), 0.0);
    column[static_cast<size_t>(c)] = 1.0;
    for (int64_t j = x.cols - 1; j >= 0; --j) {
      double square = 1.0;
      double dot = column[static_cast<size_t>(j)];
      for (int64_t i = j + 1; i < x.rows; ++i) {
        const double v = x.At(i, j);
        square += v * v;
        dot += v * column[static_cast<size_t>(i)];
      }
      const double step = 2.0 / square * dot;
      column[static_cast<size_t>(j)] -= step;
      for (int64_t i = j + 1; i < x.rows; ++i) column[static_cast<size_t>(i)] -= step * x.At(i, j);
    }
    for (int64_t i = 0; i < x.rows; ++i) {
      q.Row(i)[c] = static_cast<float>(column[static_cast<size_t>(i)]) *
                    static_cast<float>(static_cast<int>(x.At(c, c)));
    }
  }
  return q;
}

class Reader {
 public:
  Reader(HubTensors& tensors, const Options& options, int64_t hidden)
      : tensors_(tensors), options_(options), hidden_(hidden) {}

  // The unit's f as a bottleneck and the projection's own term.
  Status Read(int64_t layer, int64_t unit, SubLayerHook& hook, ProgramArena& arena) {
    HubPlace place{layer, "reft_layer", "refts", ""};
    const std::string name = "units." + std::to_string(unit) + ".";
    const auto take = [&](const std::string& leaf, const std::vector<int64_t>& shape) {
      place.leaf = name + leaf;
      return tensors_.Take(place, shape);
    };
    const int64_t rank = options_.rank;
    POLYAD_ASSIGN_OR_RETURN(std::vector<float> w, take("learned_source.weight", {rank, hidden_}));
    POLYAD_ASSIGN_OR_RETURN(std::vector<float> b, take("learned_source.bias", {rank}));
    Matrix projection(rank, hidden_);
    if (!options_.orthogonal) {
      POLYAD_ASSIGN_OR_RETURN(projection.values, take("projection.weight", {rank, hidden_}));
    } else {
      const std::string at = "projection.parametrizations.weight.";
      POLYAD_ASSIGN_OR_RETURN(std::vector<float> original, take(at + "original", {rank, hidden_}));
      POLYAD_ASSIGN_OR_RETURN(std::vector<float> base, take(at + "0.base", {hidden_, hidden_}));
      const Matrix q = Multiply(Matrix(hidden_, hidden_, std::move(base)),
                                Householder(Turned(Matrix(rank, hidden_, std::move(original)))));
      projection = Turned(q);
    }
    Matrix turned = Turned(projection);
    const TensorView out = arena.KeepMatrix(turned.values, hidden_, rank);
    Bottleneck source;
    source.down = arena.KeepMatrix(std::move(w), rank, hidden_);
    source.down_bias = arena.Keep(std::move(b));
    source.activation = options_.activation;
    source.up = out;
    hook.op = source;
    LowRank minus;
    minus.a = arena.KeepMatrix(std::move(projection.values), rank, hidden_);
    minus.b = out;
    minus.scale = -1.0f;
    hook.more = {minus};
    return absl::OkStatus();
  }

 private:
  static Matrix Turned(const Matrix& m) {
    Matrix turned(m.cols, m.rows);
    for (int64_t i = 0; i < m.rows; ++i) {
      for (int64_t j = 0; j < m.cols; ++j) turned.Row(j)[i] = m.Row(i)[j];
    }
    return turned;
  }

  HubTensors& tensors_;
  const Options& options_;
  const int64_t hidden_;
};

// The layer's output is what stands after the MLP's other hooks, with the stream or without.
SubLayerHook HookAt(int64_t layer, const AdapterProgram& program) {
  SubLayerHook hook;
  hook.layer = layer;
  hook.sub_layer = SubLayer::kMlp;
  for (const SubLayerHook& before : program.hooks) {
    if (before.layer == layer && before.sub_layer == SubLayer::kMlp) {
      hook.adds_residual = before.adds_residual;
    }
  }
  hook.input = hook.adds_residual ? Tap::kSum : Tap::kOutput;
  return hook;
}

}  // namespace

Status LowerHubReft(HubTensors& tensors, const HubPart& part, const LoweringContext& context,
                    AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields fields,
                          OrderedJsonFields::Of(part.options, kWhere));
  POLYAD_ASSIGN_OR_RETURN(const Options options, ReadOptions(fields));
  if (options.num_first == 0 && options.num_last == 0) {
    return InvalidArgument(
        "%s: prefix_positions and suffix_positions: expected a position, got "
        "none",
        kWhere);
  }
  Reader reader(tensors, options, context.spec.hidden_size);
  for (int64_t layer = 0; layer < context.spec.num_layers; ++layer) {
    POLYAD_ASSIGN_OR_RETURN(const bool named, Names(fields, layer));
    if (!named) continue;
    for (const HookRows::Kind kind : {HookRows::Kind::kFirst, HookRows::Kind::kLast}) {
      const bool last = kind == HookRows::Kind::kLast;
      if (last && options.tied && options.num_last == 0) continue;
      SubLayerHook hook = HookAt(layer, program);
      POLYAD_RETURN_IF_ERROR(
          reader.Read(layer, last && !options.tied ? 1 : 0, hook, program.arena));
      hook.rows = {kind, options.num_first, options.num_last};
      if ((last ? options.num_last : options.num_first) > 0) program.hooks.push_back(hook);
    }
  }
  program.reads_positions = true;
  program.reads_whole_prompt |= options.num_last > 0;
  return absl::OkStatus();
}

}  // namespace polyad
