// Our own container (docs/container.md): every op of the algebra as it is written, so that a family
// needs no lowering of its own. Source: zoo section 6.

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "engine/adapters/base_record.h"
#include "engine/adapters/families/container_hooks.h"
#include "engine/adapters/families/container_mixture.h"
#include "engine/adapters/families/container_prompts.h"
#include "engine/adapters/families/family.h"
#include "engine/adapters/lowering_ops.h"
#include "engine/adapters/transform_ops.h"
#include "engine/adapters/zoo_container.h"

namespace polyad {
namespace {

constexpr int64_t kMaxTasks = 1 << 16;

// One op at one linear site of the base, and where its parts go.
struct Target {
  const ContainerOp& op;
  const LoweringContext& context;
  SiteRef site;
  SiteShape shape;
};

StatusOr<SiteRef> SiteOf(const ContainerOp& op, const ModelSpec& spec) {
  const int64_t layer = op.place().layer;
  for (const SiteSpelling& spelling : kSiteSpellings) {
    if (spelling.name != op.place().site || !HasSite(spec, spelling.site)) continue;
    const bool layer_fits =
        spelling.site == Site::kHead ? layer == -1 : layer >= 0 && layer < spec.num_layers;
    if (layer_fits) return SiteRef{layer, spelling.site};
  }
  return FailedPrecondition("tensor %s: the base model has no such place", op.name());
}

Status LowerInput(const Target& at, AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> scale, at.op.Vector("a", at.shape.in));
  ScaleInput(program, at.site, std::move(scale));
  return absl::OkStatus();
}

Status LowerRotation(const Target& at, AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor blocks,
                          at.op.Floats("blocks", {kAnySize, kAnySize, kAnySize}));
  if (blocks.Dim(1) != blocks.Dim(2) || blocks.Dim(0) * blocks.Dim(1) != at.shape.in) {
    return FailedPrecondition("tensor %s.blocks: expected [n, b, b] with n b = %d, got %s",
                              at.op.name(), at.shape.in, ShapeToString(blocks.shape));
  }
  POLYAD_ASSIGN_OR_RETURN(const IndexTensor order,
                          at.op.Indices("perm", at.shape.in, {at.shape.in}));
  RotateInput(program, at.site, std::move(blocks).AsMatrix(),
              std::vector<int32_t>(order.values.begin(), order.values.end()));
  return absl::OkStatus();
}

Status LowerOutput(const Target& at, AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> scale, at.op.Vector("c", at.shape.out));
  return ScaleProduct(program, at.context, at.site, std::move(scale));
}

// The base's product alone turns, so its bias is turned back out of the result.
Status LowerPairs(const Target& at, AdapterProgram& program) {
  PairTurn turn;
  POLYAD_ASSIGN_OR_RETURN(turn.group, at.op.Int("group", at.shape.out, 2, at.shape.out));
  if (turn.group % 2 != 0 || at.shape.out % turn.group != 0) {
    return InvalidArgument("zoo.json: %s: key 'group': expected an even divisor of %d, got %d",
                           at.op.name(), at.shape.out, turn.group);
  }
  POLYAD_ASSIGN_OR_RETURN(turn.f, at.op.Vector("f", at.shape.out));
  POLYAD_ASSIGN_OR_RETURN(turn.g, at.op.Vector("g", at.shape.out));
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> bias, BaseBias(at.context, at.site));
  std::vector<float> rest = bias;
  const auto half = static_cast<size_t>(turn.group / 2);
  for (size_t i = 0; i < rest.size(); ++i) {
    const bool first_half = i / half % 2 == 0;
    const float turned = first_half ? -bias[i + half] : bias[i - half];
    rest[i] -= turn.f[i] * bias[i] + turn.g[i] * turned;
  }
  TurnOutput(program, at.site, std::move(turn));
  AddBias(program, at.site, std::move(rest));
  return absl::OkStatus();
}

Status LowerLowRank(const Target& at, AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor down, at.op.Floats("a", {kAnySize, at.shape.in}));
  POLYAD_ASSIGN_OR_RETURN(const int64_t rank,
                          CheckRank(at.op.name(), static_cast<double>(down.Dim(0))));
  POLYAD_ASSIGN_OR_RETURN(Matrix b, at.op.Take("b", at.shape.out, rank));
  POLYAD_ASSIGN_OR_RETURN(const double scale, at.op.Number("scale", 1.0));
  if (at.op.Has("d")) {
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> inner, at.op.Vector("d", rank));
    ScaleColumns(b, inner);
  }
  if (at.op.Has("e")) {
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> outer, at.op.Vector("e", at.shape.out));
    ScaleRows(b, outer);
  }
  Scale(b, scale);
  AddLowRank(program, at.site, std::move(down).AsMatrix(), std::move(b));
  return JoinContainerMixture(at.op, program, program.ops.back());
}

Status LowerMixture(const Target& at, AdapterProgram& program) {
  return LowerContainerMixture(at.op, at.site, at.shape.in, program);
}

Status LowerSparse(const Target& at, AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor values, at.op.Floats("val", {kAnySize}));
  const int64_t count = values.Dim(0);
  POLYAD_ASSIGN_OR_RETURN(const IndexTensor rows,
                          at.op.Indices("rowptr", count + 1, {at.shape.out + 1}));
  POLYAD_ASSIGN_OR_RETURN(const IndexTensor cols, at.op.Indices("col", at.shape.in, {count}));
  const bool ordered = std::is_sorted(rows.values.begin(), rows.values.end());
  if (!ordered || rows.values.front() != 0 || rows.values.back() != count) {
    return InvalidArgument("tensor %s.rowptr: expected ascending numbers from 0 to %d",
                           at.op.name(), count);
  }
  std::vector<SparseEntry> entries;
  entries.reserve(static_cast<size_t>(count));
  for (int64_t row = 0; row < at.shape.out; ++row) {
    const auto begin = static_cast<size_t>(rows.values[static_cast<size_t>(row)]);
    const auto end = static_cast<size_t>(rows.values[static_cast<size_t>(row) + 1]);
    for (size_t i = begin; i < end; ++i) {
      entries.push_back(EntryAt(row, cols.values[i], values.values[i]));
    }
  }
  return AddSparse(program, at.context, at.site, std::move(entries));
}

Status LowerRows(const Target& at, AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor values, at.op.Floats("val", {kAnySize, at.shape.in}));
  POLYAD_ASSIGN_OR_RETURN(const IndexTensor rows,
                          at.op.Indices("rows", at.shape.out, {values.Dim(0)}));
  if (rows.values.empty()) return absl::OkStatus();
  DenseRows op;
  op.rows = program.arena.Keep(std::vector<int32_t>(rows.values.begin(), rows.values.end()));
  op.values = program.arena.KeepMatrix(std::move(values.values), values.Dim(0), at.shape.in);
  op.out = at.shape.out;
  program.ops.push_back({at.site, op});
  return absl::OkStatus();
}

Status LowerSigns(const Target& at, AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor* bits, at.op.Integers("bits"));
  const int64_t words = (at.shape.in + 31) / 32;
  if (bits->dtype != DType::kI32 || bits->shape != std::vector<int64_t>{at.shape.out, words}) {
    return FailedPrecondition("tensor %s.bits: expected i32 [%d, %d], got %s %s", at.op.name(),
                              at.shape.out, words, std::string(InfoOf(bits->dtype).name),
                              ShapeToString(bits->shape));
  }
  std::vector<uint32_t> copied(static_cast<size_t>(at.shape.out * words));
  std::memcpy(copied.data(), bits->bytes.data(), copied.size() * sizeof(uint32_t));
  POLYAD_ASSIGN_OR_RETURN(FloatTensor scale, at.op.AnyFloats("coef"));
  SignBits op;
  op.out = at.shape.out;
  op.in = at.shape.in;
  if (scale.shape.size() == 2) op.groups = scale.Dim(1);
  const bool of_rows = !scale.shape.empty() && scale.Dim(0) == at.shape.out;
  if ((scale.values.size() != 1 && !of_rows) || scale.shape.size() > 2) {
    return FailedPrecondition("tensor %s: expected one number, or [%d] or [%d, groups], got %s",
                              scale.name, at.shape.out, at.shape.out, ShapeToString(scale.shape));
  }
  op.bits = program.arena.Keep(std::move(copied));
  op.scale = program.arena.Keep(std::move(scale.values));
  program.ops.push_back({at.site, op});
  return absl::OkStatus();
}

Status LowerKronecker(const Target& at, AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor left, at.op.Floats("c", {kAnySize, kAnySize}));
  POLYAD_ASSIGN_OR_RETURN(FloatTensor right, at.op.Floats("d", {kAnySize, kAnySize}));
  POLYAD_ASSIGN_OR_RETURN(const double scale, at.op.Number("scale", 1.0));
  Matrix c = std::move(left).AsMatrix();
  const int64_t rows = c.rows * right.Dim(0);
  if (rows != at.shape.out || c.cols * right.Dim(1) != at.shape.in) {
    return FailedPrecondition("tensor %s: expected factors of [%d, %d], got [%d, %d] and %s",
                              right.name, at.shape.out, at.shape.in, c.rows, c.cols,
                              ShapeToString(right.shape));
  }
  Scale(c, scale);
  AddKronecker(program, at.site, std::move(c), std::move(right).AsMatrix());
  return absl::OkStatus();
}

Status LowerHadamard(const Target& at, AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor u, at.op.Floats("u", {kAnySize, at.shape.in}));
  POLYAD_ASSIGN_OR_RETURN(const Matrix v, at.op.Take("v", at.shape.out, u.Dim(0)));
  POLYAD_ASSIGN_OR_RETURN(const Matrix weight, BaseWeight(at.context, at.site));
  Matrix delta = Multiply(v, std::move(u).AsMatrix());
  for (size_t i = 0; i < delta.values.size(); ++i) delta.values[i] *= weight.values[i];
  AddDense(program, at.site, std::move(delta));
  return absl::OkStatus();
}

Status LowerDense(const Target& at, AdapterProgram& program) {
  const bool replaces = at.op.Has("replace");
  POLYAD_ASSIGN_OR_RETURN(Matrix delta,
                          at.op.Take(replaces ? "replace" : "delta", at.shape.out, at.shape.in));
  if (replaces) {
    POLYAD_ASSIGN_OR_RETURN(const Matrix weight, BaseWeight(at.context, at.site));
    for (size_t i = 0; i < delta.values.size(); ++i) delta.values[i] -= weight.values[i];
  }
  AddDense(program, at.site, std::move(delta));
  return absl::OkStatus();
}

Status LowerBias(const Target& at, AdapterProgram& program) {
  const bool replaces = at.op.Has("b");
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> values,
                          at.op.Vector(replaces ? "b" : "delta", at.shape.out));
  if (replaces) return ReplaceBias(program, at.context, at.site, std::move(values));
  AddBias(program, at.site, std::move(values));
  return absl::OkStatus();
}

// The base reads x + s (B (A x + a) + b), so y += (W s B)(A x) + W s (B a + b).
Status LowerInputLowRank(const Target& at, AdapterProgram& program) {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor down, at.op.Floats("a", {kAnySize, at.shape.in}));
  const int64_t rank = down.Dim(0);
  POLYAD_ASSIGN_OR_RETURN(Matrix up, at.op.Take("b", at.shape.in, rank));
  POLYAD_ASSIGN_OR_RETURN(const double scale, at.op.Number("scale", 1.0));
  POLYAD_ASSIGN_OR_RETURN(const Matrix weight, BaseWeight(at.context, at.site));
  Scale(up, scale);
  Matrix shift(at.shape.in, 1);
  if (at.op.Has("a_bias")) {
    POLYAD_ASSIGN_OR_RETURN(std::vector<float> bias, at.op.Vector("a_bias", rank));
    shift = Multiply(up, Matrix(rank, 1, std::move(bias)));
  }
  if (at.op.Has("b_bias")) {
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> bias, at.op.Vector("b_bias", at.shape.in));
    for (size_t i = 0; i < bias.size(); ++i) {
      shift.values[i] += static_cast<float>(scale) * bias[i];
    }
  }
  AddLowRank(program, at.site, std::move(down).AsMatrix(), Multiply(weight, up));
  AddBias(program, at.site, Multiply(weight, shift).values);
  return absl::OkStatus();
}

Status LowerNorm(const ContainerOp& op, const LoweringContext& context, AdapterProgram& program) {
  for (const NormSpelling& spelling : kNormSpellings) {
    if (spelling.name != op.place().site) continue;
    NormReplacement norm{op.place().layer, spelling.site, {}, {}};
    const int64_t width = NormWidth(context.spec, spelling.site);
    POLYAD_ASSIGN_OR_RETURN(norm.weight, op.Vector("w", width));
    if (op.Has("b")) {
      POLYAD_ASSIGN_OR_RETURN(norm.bias, op.Vector("b", width));
    }
    return ReplaceNorm(program, context.spec, std::move(norm), op.name());
  }
  return FailedPrecondition("tensor %s: the base model has no such norm", op.name());
}

// The token table's rows, added to what changes them.
Status AddBaseRows(const LoweringContext& context, const std::vector<int64_t>& ids,
                   std::vector<float>& rows) {
  POLYAD_ASSIGN_OR_RETURN(const Matrix table, BaseWeight(context, {-1, Site::kEmbed}));
  for (size_t i = 0; i < ids.size(); ++i) {
    float* row = rows.data() + static_cast<int64_t>(i) * table.cols;
    for (int64_t j = 0; j < table.cols; ++j) row[j] += table.At(ids[i], j);
  }
  return absl::OkStatus();
}

// Rows of the token table that take the place of the base's, or a low-rank change of it.
Status LowerEmbedding(const ContainerOp& op, const LoweringContext& context,
                      AdapterProgram& program) {
  const ModelSpec& spec = context.spec;
  if (op.kind() == "er") {
    const bool replaces = op.Has("rows");
    POLYAD_ASSIGN_OR_RETURN(FloatTensor rows,
                            op.Floats(replaces ? "rows" : "delta", {kAnySize, spec.hidden_size}));
    POLYAD_ASSIGN_OR_RETURN(const IndexTensor ids,
                            op.Indices("ids", spec.vocab_size, {rows.Dim(0)}));
    if (!replaces) POLYAD_RETURN_IF_ERROR(AddBaseRows(context, ids.values, rows.values));
    EmbeddingRows replaced;
    replaced.ids = program.arena.Keep(std::vector<int32_t>(ids.values.begin(), ids.values.end()));
    replaced.rows = program.arena.KeepMatrix(std::move(rows.values), rows.Dim(0), spec.hidden_size);
    program.embedding_ops.push_back(replaced);
    return absl::OkStatus();
  }
  if (op.kind() == "bn") return LowerEmbeddingBottleneck(op, spec, program);
  if (op.kind() != "lr") {
    return Unimplemented("tensor %s: op '%s' is not served at the embedding", op.name(), op.kind());
  }
  POLYAD_ASSIGN_OR_RETURN(FloatTensor a, op.Floats("a", {kAnySize, spec.vocab_size}));
  POLYAD_ASSIGN_OR_RETURN(Matrix b, op.Take("b", spec.hidden_size, a.Dim(0)));
  POLYAD_ASSIGN_OR_RETURN(const double scale, op.Number("scale", 1.0));
  Scale(b, scale);
  EmbeddingLowRank change;
  change.a = program.arena.KeepMatrix(std::move(a.values), b.cols, spec.vocab_size);
  change.b = program.arena.KeepMatrix(std::move(b.values), b.rows, b.cols);
  program.embedding_ops.push_back(change);
  return absl::OkStatus();
}

Status LowerBottleneck(const Target& at, AdapterProgram& program) {
  return LowerSiteBottleneck(at.op, at.site, at.shape, program);
}

struct OpKind {
  std::string_view name;
  Status (*lower)(const Target& at, AdapterProgram& program);
};
constexpr OpKind kKinds[] = {
    {"is", LowerInput},        {"ir", LowerRotation},   {"os", LowerOutput}, {"or", LowerPairs},
    {"lr", LowerLowRank},      {"sp", LowerSparse},     {"rb", LowerRows},   {"sg", LowerSigns},
    {"kr", LowerKronecker},    {"hd", LowerHadamard},   {"dd", LowerDense},  {"bi", LowerBias},
    {"il", LowerInputLowRank}, {"bn", LowerBottleneck}, {"mx", LowerMixture}};

// Beside a whole sub-layer: lowered as at a square site, then moved into hooks.
Status LowerBesideSubLayer(const ContainerOp& op, const LoweringContext& context,
                           AdapterProgram& program) {
  if (op.kind() == "bn") return LowerSubLayerBottleneck(op, context.spec, program);
  if (op.kind() == "ts") return LowerTokenRouter(op, context.spec, program);
  if (op.kind() != "lr" && op.kind() != "kr") {
    return Unimplemented("tensor %s: op '%s' is not served beside a sub-layer", op.name(),
                         op.kind());
  }
  const int64_t hidden = context.spec.hidden_size;
  const Target target{op, context, {op.place().layer, Site::kO}, {hidden, hidden}};
  const auto first = static_cast<std::ptrdiff_t>(program.ops.size());
  POLYAD_RETURN_IF_ERROR(op.kind() == "lr" ? LowerLowRank(target, program)
                                           : LowerKronecker(target, program));
  for (auto made = program.ops.begin() + first; made != program.ops.end(); ++made) {
    if (made->mixture >= 0) {
      return Unimplemented("zoo.json: %s: key 'expert': not served beside a sub-layer", op.name());
    }
    POLYAD_RETURN_IF_ERROR(AddSubLayerHook(op, context.spec, made->op, program));
  }
  program.ops.erase(program.ops.begin() + first, program.ops.end());
  return absl::OkStatus();
}

Status LowerOp(const ContainerOp& op, const LoweringContext& context, AdapterProgram& program) {
  if (op.kind() == "nw") return LowerNorm(op, context, program);
  if (op.kind() == "ep" || op.kind() == "kv") return LowerContainerPrompt(op, context, program);
  if (op.place().site == "embed") return LowerEmbedding(op, context, program);
  if (op.place().site == "attn" || op.place().site == "mlp") {
    return LowerBesideSubLayer(op, context, program);
  }
  for (const OpKind& kind : kKinds) {
    if (kind.name != op.kind()) continue;
    POLYAD_ASSIGN_OR_RETURN(const SiteRef site, SiteOf(op, context.spec));
    return kind.lower({op, context, site, ShapeOf(context.spec, site.site)}, program);
  }
  return Unimplemented("tensor %s: op '%s' is not understood", op.name(), op.kind());
}

// Nothing where an op is every task's.
StatusOr<std::optional<int64_t>> TaskOf(const ContainerOp& op) {
  return op.IntIfAny("task", 0, kMaxTasks - 1);
}

// The task that a container for several is loaded for; nothing where no op names one.
StatusOr<std::optional<int64_t>> ChosenTask(const ZooContainer& container,
                                            const LoweringContext& context) {
  std::set<int64_t> tasks;
  for (const ContainerOp& op : container.ops()) {
    POLYAD_ASSIGN_OR_RETURN(const std::optional<int64_t> task, TaskOf(op));
    if (task.has_value()) tasks.insert(*task);
  }
  if (tasks.empty()) return std::optional<int64_t>();
  POLYAD_ASSIGN_OR_RETURN(const int64_t chosen, TaskOf(context, *tasks.rbegin() + 1));
  if (tasks.count(chosen) == 0) {
    return InvalidArgument(
        "option 'task': expected one of zoo.json's %d tasks, got %d, which none "
        "of its ops belongs to",
        tasks.size(), chosen);
  }
  return std::optional(chosen);
}

}  // namespace

StatusOr<AdapterProgram> LowerContainer(AdapterSource& source, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const ZooContainer container, ZooContainer::Parse(source));
  if (!container.hooks().empty()) {
    return Unimplemented("zoo.json: key 'hooks': hooks are not served");
  }
  // A change of one set of weights is none of another's.
  POLYAD_RETURN_IF_ERROR(CheckBelongs("zoo.json: base", container.base_digest(), context));
  AdapterProgram program;
  program.family = container.family();
  POLYAD_ASSIGN_OR_RETURN(const std::optional<int64_t> chosen, ChosenTask(container, context));
  for (const bool mixtures : {true, false}) {  // mixtures before their experts
    for (const ContainerOp& op : container.ops()) {
      if ((op.kind() == "mx") != mixtures) continue;
      POLYAD_ASSIGN_OR_RETURN(const std::optional<int64_t> task, TaskOf(op));
      AdapterProgram of_another;  // checked like the chosen one's, then dropped
      AdapterProgram& to = !task.has_value() || task == chosen ? program : of_another;
      POLYAD_RETURN_IF_ERROR(LowerOp(op, context, to));
      POLYAD_RETURN_IF_ERROR(op.CheckOptionsTaken());
    }
  }
  return program;
}

}  // namespace polyad
