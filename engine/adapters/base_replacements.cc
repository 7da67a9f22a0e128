#include "engine/adapters/base_replacements.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/module_tensors.h"
#include "engine/spec/weight_names.h"

namespace polyad {
namespace {

constexpr std::string_view kTokenSuffixes[] = {".token_adapter.trainable_tokens_delta",
                                               ".trainable_tokens_delta"};
constexpr SiteRef kHeadSite{-1, Site::kHead};

struct Place {
  enum class Part { kMatrix, kBias, kNormWeight, kNormBias };
  Part part = Part::kMatrix;
  SiteRef site;
  NormSite norm = NormSite::kFinal;
  bool transposed = false;
};

// What a kind of weight is here; nullopt for what cannot be replaced.
std::optional<Place> PlaceOf(const WeightEntry& entry) {
  const auto linear = [&](Site site, Place::Part part) {
    return Place{
        part, {entry.layer, site}, NormSite::kFinal, entry.layout == WeightLayout::kTransposed};
  };
  const auto norm = [&](NormSite site, Place::Part part) {
    return Place{part, {entry.layer, Site::kQ}, site, false};
  };
  using Part = Place::Part;
  switch (entry.kind) {
    case WeightKind::kEmbed:
      return linear(Site::kEmbed, Part::kMatrix);
    case WeightKind::kHead:
      return linear(Site::kHead, Part::kMatrix);
    case WeightKind::kPositions:
      return std::nullopt;
    case WeightKind::kFinalNorm:
      return norm(NormSite::kFinal, Part::kNormWeight);
    case WeightKind::kFinalNormBias:
      return norm(NormSite::kFinal, Part::kNormBias);
    case WeightKind::kAttnNorm:
      return norm(NormSite::kAttention, Part::kNormWeight);
    case WeightKind::kAttnNormBias:
      return norm(NormSite::kAttention, Part::kNormBias);
    case WeightKind::kMlpNorm:
      return norm(NormSite::kMlp, Part::kNormWeight);
    case WeightKind::kMlpNormBias:
      return norm(NormSite::kMlp, Part::kNormBias);
    case WeightKind::kQNorm:
      return norm(NormSite::kQueryHead, Part::kNormWeight);
    case WeightKind::kKNorm:
      return norm(NormSite::kKeyHead, Part::kNormWeight);
    case WeightKind::kQ:
      return linear(Site::kQ, Part::kMatrix);
    case WeightKind::kK:
      return linear(Site::kK, Part::kMatrix);
    case WeightKind::kV:
      return linear(Site::kV, Part::kMatrix);
    case WeightKind::kQkv:
      return linear(Site::kQkv, Part::kMatrix);
    case WeightKind::kO:
      return linear(Site::kO, Part::kMatrix);
    case WeightKind::kGate:
      return linear(Site::kGate, Part::kMatrix);
    case WeightKind::kUp:
      return linear(Site::kUp, Part::kMatrix);
    case WeightKind::kDown:
      return linear(Site::kDown, Part::kMatrix);
    case WeightKind::kFcIn:
      return linear(Site::kFcIn, Part::kMatrix);
    case WeightKind::kFcOut:
      return linear(Site::kFcOut, Part::kMatrix);
    default:
      return std::nullopt;  // biases are found by their modules: an adapter may add one
  }
}

class Replacer {
 public:
  Replacer(AdapterSource& source, const LoweringContext& context, AdapterProgram& program)
      : source_(source), context_(context), program_(program) {
    for (const WeightEntry& entry : WeightPlan(context.spec, WeightFormat::kHuggingFace)) {
      if (const std::optional<Place> place = PlaceOf(entry))
        places_.emplace(entry.tensor_name, *place);
    }
    if (context.spec.tie_embeddings)
      places_.emplace("lm_head.weight", Place{Place::Part::kMatrix, kHeadSite, {}, false});
  }

  Status Run() {
    for (const std::string& name : source_.RemainingNames()) {
      const std::optional<Place> place = Find(name);
      if (place) POLYAD_RETURN_IF_ERROR(Replace(name, *place));
    }
    for (auto& [key, norm] : norms_) program_.norms.push_back(std::move(norm));
    return absl::OkStatus();
  }

 private:
  std::optional<Place> Find(const std::string& name) const {
    std::string_view rest = name;
    if (!rest.starts_with(kPeftPrefix)) return std::nullopt;
    std::string plain(rest.substr(kPeftPrefix.size()));
    if (const size_t at = plain.find(".base_layer."); at != std::string::npos) plain.erase(at, 11);
    if (const auto found = places_.find(plain); found != places_.end()) return found->second;
    constexpr std::string_view kBias = ".bias";
    if (!plain.ends_with(kBias)) return std::nullopt;
    const StatusOr<SiteRef> site = ResolveModulePath(
        context_.spec, std::string_view(plain).substr(0, plain.size() - kBias.size()));
    if (!site.ok() || site->site == Site::kEmbed) return std::nullopt;
    return Place{Place::Part::kBias, *site, {}, false};
  }

  Status Replace(const std::string& name, const Place& place) {
    switch (place.part) {
      case Place::Part::kMatrix:
        return ReplaceMatrix(name, place);
      case Place::Part::kBias:
        return ReplaceBias(name, place.site);
      case Place::Part::kNormWeight:
      case Place::Part::kNormBias:
        return ReplaceNorm(name, place);
    }
    return absl::OkStatus();
  }

  Status ReplaceMatrix(const std::string& name, const Place& place) {
    const SiteShape shape = ShapeOf(context_.spec, place.site.site);
    const int64_t rows = place.transposed ? shape.in : shape.out;
    const int64_t cols = place.transposed ? shape.out : shape.in;
    POLYAD_ASSIGN_OR_RETURN(FloatTensor tensor, TakeFloats(source_, name, {rows, cols}));
    Matrix own = std::move(tensor).AsMatrix();
    if (place.transposed) own = Transposed(own);
    POLYAD_ASSIGN_OR_RETURN(const Matrix base, BaseWeight(context_, place.site));
    const std::vector<int32_t> changed = ChangedRows(own, base);
    if (changed.empty()) return absl::OkStatus();
    if (place.site.site == Site::kEmbed) {
      ReplaceEmbeddingRows(changed, PickRows(own, changed));
      return absl::OkStatus();
    }
    for (size_t i = 0; i < own.values.size(); ++i) own.values[i] -= base.values[i];
    if (static_cast<int64_t>(changed.size()) * 2 < own.rows) {
      AddRows(place.site, changed, PickRows(own, changed), own.rows);
    } else {
      AddDense(program_, place.site, std::move(own));
    }
    return absl::OkStatus();
  }

  static std::vector<int32_t> ChangedRows(const Matrix& own, const Matrix& base) {
    std::vector<int32_t> rows;
    for (int64_t i = 0; i < own.rows; ++i) {
      if (!std::equal(own.Row(i), own.Row(i) + own.cols, base.Row(i)))
        rows.push_back(static_cast<int32_t>(i));
    }
    return rows;
  }

  static Matrix PickRows(const Matrix& m, const std::vector<int32_t>& rows) {
    Matrix result(static_cast<int64_t>(rows.size()), m.cols);
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy(m.Row(rows[i]), m.Row(rows[i]) + m.cols, result.Row(static_cast<int64_t>(i)));
    }
    return result;
  }

 public:
  // Before whatever else the adapter does to embeddings.
  void ReplaceEmbeddingRows(std::vector<int32_t> ids, Matrix rows) {
    EmbeddingRows op;
    op.ids = program_.arena.Keep(std::move(ids));
    op.rows = program_.arena.KeepMatrix(std::move(rows.values), rows.rows, rows.cols);
    program_.embedding_ops.insert(program_.embedding_ops.begin(), op);
  }

  void AddRows(SiteRef site, std::vector<int32_t> ids, Matrix changes, int64_t out) {
    DenseRows op;
    op.rows = program_.arena.Keep(std::move(ids));
    op.values = program_.arena.KeepMatrix(std::move(changes.values), changes.rows, changes.cols);
    op.out = out;
    program_.ops.push_back({site, op});
  }

 private:
  Status ReplaceBias(const std::string& name, SiteRef site) {
    POLYAD_ASSIGN_OR_RETURN(FloatTensor own,
                            TakeFloats(source_, name, {ShapeOf(context_.spec, site.site).out}));
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> base, BaseBias(context_, site));
    for (size_t i = 0; i < base.size(); ++i) own.values[i] -= base[i];
    AddBias(program_, site, std::move(own.values));
    return absl::OkStatus();
  }

  Status ReplaceNorm(const std::string& name, const Place& place) {
    const auto key = std::make_pair(place.site.layer, place.norm);
    auto found = norms_.find(key);
    if (found == norms_.end()) {
      POLYAD_ASSIGN_OR_RETURN(const BaseWeights* base, context_.Base());
      POLYAD_ASSIGN_OR_RETURN(NormVectors vectors, base->Norm(place.site.layer, place.norm));
      NormReplacement norm{place.site.layer, place.norm, std::move(vectors.weight),
                           std::move(vectors.bias)};
      found = norms_.emplace(key, std::move(norm)).first;
    }
    const auto size = static_cast<int64_t>(found->second.weight.size());
    POLYAD_ASSIGN_OR_RETURN(FloatTensor own, TakeFloats(source_, name, {size}));
    (place.part == Place::Part::kNormWeight ? found->second.weight : found->second.bias) =
        std::move(own.values);
    return absl::OkStatus();
  }

  AdapterSource& source_;
  const LoweringContext& context_;
  AdapterProgram& program_;
  std::unordered_map<std::string, Place> places_;  // by the base's name of the tensor
  std::map<std::pair<int64_t, NormSite>, NormReplacement> norms_;
};

// The token ids that go with a module's rows; those of a list hold for every module.
StatusOr<std::vector<int32_t>> TokensOf(const OrderedJson& indices, const std::string& path,
                                        int64_t vocab) {
  const OrderedJson* list = &indices;
  if (indices.is_object()) {
    list = nullptr;
    for (const auto& [key, value] : indices.items()) {
      if (path == key || path.ends_with("." + key)) list = &value;
    }
  }
  if (list == nullptr || !list->is_array()) {
    return InvalidArgument("adapter_config.json: expected the token indices of module %s as a list",
                           path);
  }
  std::vector<int32_t> tokens;
  for (const OrderedJson& entry : *list) {
    if (!entry.is_number_integer() || entry.get<int64_t>() < 0 || entry.get<int64_t>() >= vocab) {
      return InvalidArgument(
          "adapter_config.json: token indices of module %s: expected integers in [0, %d)", path,
          vocab);
    }
    tokens.push_back(static_cast<int32_t>(entry.get<int64_t>()));
  }
  return tokens;
}

// Rows in ascending order of their tokens, each once.
Status SortByToken(const std::string& name, std::vector<int32_t>& tokens, Matrix& rows) {
  std::vector<size_t> order(tokens.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return tokens[a] < tokens[b]; });
  std::vector<int32_t> sorted;
  Matrix result(rows.rows, rows.cols);
  for (size_t i = 0; i < order.size(); ++i) {
    if (!sorted.empty() && sorted.back() == tokens[order[i]]) {
      return InvalidArgument("tensor %s: token %d is trained twice", name, sorted.back());
    }
    sorted.push_back(tokens[order[i]]);
    const auto from = static_cast<int64_t>(order[i]);
    std::copy(rows.Row(from), rows.Row(from) + rows.cols, result.Row(static_cast<int64_t>(i)));
  }
  tokens = std::move(sorted);
  rows = std::move(result);
  return absl::OkStatus();
}

Status ChangeHeadRows(const LoweringContext& context, Replacer& replacer,
                      std::vector<int32_t> tokens, Matrix rows) {
  POLYAD_ASSIGN_OR_RETURN(const Matrix head, BaseWeight(context, kHeadSite));
  for (size_t i = 0; i < tokens.size(); ++i) {
    for (int64_t j = 0; j < rows.cols; ++j)
      rows.At(static_cast<int64_t>(i), j) -= head.At(tokens[i], j);
  }
  replacer.AddRows(kHeadSite, std::move(tokens), std::move(rows), head.rows);
  return absl::OkStatus();
}

}  // namespace

Status LowerReplacements(AdapterSource& source, const LoweringContext& context,
                         AdapterProgram& program) {
  return Replacer(source, context, program).Run();
}

Status LowerTrainedTokens(AdapterSource& source, const LoweringContext& context,
                          const OrderedJson& indices, AdapterProgram& program) {
  struct Trained {
    std::vector<int32_t> tokens;
    Matrix rows;
  };
  std::optional<Trained> embedding;
  std::optional<Trained> head;
  for (const std::string& name : source.RemainingNames()) {
    std::string_view rest = name;
    if (!rest.starts_with(kPeftPrefix)) continue;
    rest.remove_prefix(kPeftPrefix.size());
    for (const std::string_view suffix : kTokenSuffixes) {
      if (!rest.ends_with(suffix)) continue;
      const std::string path(rest.substr(0, rest.size() - suffix.size()));
      const StatusOr<SiteRef> site = ResolveModulePath(context.spec, path);
      if (!site.ok() || site->layer >= 0) {
        return FailedPrecondition("tensor %s: the base model has no token table of this name",
                                  name);
      }
      POLYAD_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                              TokensOf(indices, path, context.spec.vocab_size));
      POLYAD_ASSIGN_OR_RETURN(FloatTensor tensor, TakeFloats(source, name,
                                                             {static_cast<int64_t>(tokens.size()),
                                                              context.spec.hidden_size}));
      Matrix rows = std::move(tensor).AsMatrix();
      POLYAD_RETURN_IF_ERROR(SortByToken(name, tokens, rows));
      (site->site == Site::kHead ? head : embedding) = Trained{std::move(tokens), std::move(rows)};
      break;
    }
  }
  if (!head && embedding && context.spec.tie_embeddings) head = embedding;
  Replacer replacer(source, context, program);
  if (embedding && !embedding->tokens.empty())
    replacer.ReplaceEmbeddingRows(embedding->tokens, std::move(embedding->rows));
  if (!head || head->tokens.empty()) return absl::OkStatus();
  return ChangeHeadRows(context, replacer, std::move(head->tokens), std::move(head->rows));
}

}  // namespace polyad
