#include "engine/constraint/grammar.h"

#include <algorithm>
#include <utility>

#include "engine/io/quote.h"

namespace polyad {
namespace {

constexpr int32_t kNever = kMaxCallDepth + 1;
constexpr int kMaxEmptySteps = 32;  // to a rule's end, behind a tail call

bool TakesAny(const GrammarEdge& edge, const ByteSet& usable) {
  if (edge.kind != GrammarEdge::Kind::kBytes) return true;
  for (int byte = edge.low; byte <= edge.high; ++byte) {
    if (usable[static_cast<size_t>(byte)]) return true;
  }
  return false;
}

// Nothing can follow but the end of the rule.
bool OnlyAccepts(const Grammar& grammar, NodeId node) {
  for (int steps = 0; steps < kMaxEmptySteps; ++steps) {
    const std::span<const GrammarEdge> edges = grammar.EdgesOf(node);
    if (edges.empty()) return grammar.Accepts(node);
    if (edges.size() > 1 || edges[0].kind != GrammarEdge::Kind::kEmpty || grammar.Accepts(node)) {
      return false;
    }
    node = edges[0].to;
  }
  return false;
}

// What the rest of the rule needs on the way of this edge.
int32_t NeedBy(const GrammarEdge& edge, const Grammar& grammar) {
  const int32_t behind = grammar.Need(edge.to);
  if (edge.kind != GrammarEdge::Kind::kCall) return behind;
  const int32_t inside = grammar.Need(grammar.StartOf(edge.rule)) + (edge.is_tail ? 0 : 1);
  return std::min(kNever, std::max(inside, behind));
}

}  // namespace

RuleId GrammarBuilder::AddRule(std::string name) {
  const NodeId start = AddNode();
  const NodeId accept = AddNode();
  rules_.push_back({std::move(name), start, accept});
  return static_cast<RuleId>(rules_.size()) - 1;
}

NodeId GrammarBuilder::AddNode() {
  if (num_nodes_ >= kMaxGrammarNodes) {
    full_ = true;
    return 0;
  }
  return static_cast<NodeId>(num_nodes_++);
}

void GrammarBuilder::Add(NodeId from, GrammarEdge edge) {
  if (static_cast<int64_t>(edges_.size()) >= kMaxGrammarEdges) full_ = true;
  if (!full_) edges_.push_back({from, edge});
}

void GrammarBuilder::Bytes(NodeId from, uint8_t low, uint8_t high, NodeId to) {
  Add(from, {.kind = GrammarEdge::Kind::kBytes, .low = low, .high = high, .to = to});
}

void GrammarBuilder::Empty(NodeId from, NodeId to) {
  Add(from, {.kind = GrammarEdge::Kind::kEmpty, .to = to});
}

void GrammarBuilder::Call(NodeId from, RuleId rule, NodeId to) {
  Add(from, {.kind = GrammarEdge::Kind::kCall, .rule = rule, .to = to});
}

NodeId GrammarBuilder::Literal(NodeId from, std::string_view text) {
  NodeId at = from;
  for (const char c : text) {
    const NodeId next = AddNode();
    Bytes(at, static_cast<uint8_t>(c), static_cast<uint8_t>(c), next);
    at = next;
  }
  return at;
}

NodeId GrammarBuilder::OneOf(NodeId from, std::string_view bytes) {
  const NodeId to = AddNode();
  for (const char c : bytes) Bytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
  return to;
}

NodeId GrammarBuilder::CallRule(NodeId from, RuleId rule) {
  const NodeId to = AddNode();
  Call(from, rule, to);
  return to;
}

StatusOr<Grammar> GrammarBuilder::Build(RuleId root, const ByteSet& usable) {
  if (full_) {
    return InvalidArgument("expected an automaton of at most %d states and %d edges, got more",
                           kMaxGrammarNodes, kMaxGrammarEdges);
  }
  Grammar grammar;
  grammar.root_ = root;
  for (const Rule& rule : rules_) grammar.starts_.push_back(rule.start);
  grammar.accepts_.resize(static_cast<size_t>(num_nodes_));
  for (const Rule& rule : rules_) grammar.accepts_[static_cast<size_t>(rule.accept)] = true;
  SortEdges(usable, grammar);
  POLYAD_RETURN_IF_ERROR(CheckLeftRecursion(grammar));
  ComputeNeeds(grammar);
  if (grammar.Need(grammar.StartOf(root)) > kMaxCallDepth) {
    return InvalidArgument(
        "expected something that a text can satisfy within %d nested rules, "
        "got none that the model's tokens can spell",
        kMaxCallDepth);
  }
  ClassifyBytes(usable, grammar);
  return grammar;
}

// Edges by their first node; a call is a tail where nothing leaves its target, an accept.
void GrammarBuilder::SortEdges(const ByteSet& usable, Grammar& out) const {
  std::vector<int32_t> counts(static_cast<size_t>(num_nodes_) + 1, 0);
  for (const Draft& draft : edges_) {
    if (TakesAny(draft.edge, usable)) ++counts[static_cast<size_t>(draft.from) + 1];
  }
  for (size_t i = 1; i < counts.size(); ++i) counts[i] += counts[i - 1];
  out.edges_begin_ = counts;
  out.edges_.resize(static_cast<size_t>(counts.back()));
  std::vector<int32_t> next = counts;
  for (const Draft& draft : edges_) {
    if (!TakesAny(draft.edge, usable)) continue;
    out.edges_[static_cast<size_t>(next[static_cast<size_t>(draft.from)]++)] = draft.edge;
  }
  for (GrammarEdge& edge : out.edges_) {
    edge.is_tail = edge.kind == GrammarEdge::Kind::kCall && OnlyAccepts(out, edge.to);
  }
}

void GrammarBuilder::ClassifyBytes(const ByteSet& usable, Grammar& out) const {
  std::array<bool, 257> cut{};
  for (const GrammarEdge& edge : out.edges_) {
    if (edge.kind != GrammarEdge::Kind::kBytes) continue;
    cut[edge.low] = true;
    cut[size_t{edge.high} + 1] = true;
  }
  out.representatives_ = {0};
  int32_t current = 0;  // 0: the next usable byte begins a class
  for (size_t byte = 0; byte < 256; ++byte) {
    if (cut[byte]) current = 0;
    if (!usable[byte]) continue;
    if (current == 0) {
      current = out.num_classes_++;
      out.representatives_.push_back(static_cast<uint8_t>(byte));
    }
    out.classes_[byte] = current;
  }
}

// Needs only ever fall, each at most kMaxCallDepth times: a node whose need fell is told to what
// leads there, and a rule's start to its callers.
void GrammarBuilder::ComputeNeeds(Grammar& out) const {
  const auto num_nodes = static_cast<size_t>(num_nodes_);
  std::vector<std::vector<NodeId>> into(num_nodes);
  std::vector<std::vector<NodeId>> callers(num_nodes);  // by a rule's start
  for (NodeId node = 0; node < num_nodes_; ++node) {
    for (const GrammarEdge& edge : out.EdgesOf(node)) {
      into[static_cast<size_t>(edge.to)].push_back(node);
      if (edge.kind == GrammarEdge::Kind::kCall) {
        callers[static_cast<size_t>(out.StartOf(edge.rule))].push_back(node);
      }
    }
  }
  out.need_.assign(num_nodes, kNever);
  std::vector<NodeId> fallen;
  for (NodeId node = 0; node < num_nodes_; ++node) {
    if (!out.Accepts(node)) continue;
    out.need_[static_cast<size_t>(node)] = 0;
    fallen.push_back(node);
  }
  const auto revise = [&](NodeId node) {
    int32_t need = out.Need(node);
    for (const GrammarEdge& edge : out.EdgesOf(node)) need = std::min(need, NeedBy(edge, out));
    if (need >= out.Need(node)) return;
    out.need_[static_cast<size_t>(node)] = need;
    fallen.push_back(node);
  };
  while (!fallen.empty()) {
    const NodeId node = fallen.back();
    fallen.pop_back();
    for (const NodeId from : into[static_cast<size_t>(node)]) revise(from);
    for (const NodeId from : callers[static_cast<size_t>(node)]) revise(from);
  }
}

// Nodes from which their rule can end without a byte.
std::vector<bool> GrammarBuilder::NullableNodes(const Grammar& grammar) const {
  std::vector<bool> nullable(static_cast<size_t>(num_nodes_));
  std::vector<std::vector<NodeId>> into(nullable.size());
  for (NodeId node = 0; node < num_nodes_; ++node) {
    for (const GrammarEdge& edge : grammar.EdgesOf(node)) {
      if (edge.kind == GrammarEdge::Kind::kBytes) continue;
      into[static_cast<size_t>(edge.to)].push_back(node);
      if (edge.kind == GrammarEdge::Kind::kCall) {
        into[static_cast<size_t>(grammar.StartOf(edge.rule))].push_back(node);
      }
    }
  }
  std::vector<NodeId> found;
  for (const Rule& rule : rules_) {
    nullable[static_cast<size_t>(rule.accept)] = true;
    found.push_back(rule.accept);
  }
  while (!found.empty()) {
    const NodeId node = found.back();
    found.pop_back();
    for (const NodeId from : into[static_cast<size_t>(node)]) {
      if (nullable[static_cast<size_t>(from)]) continue;
      for (const GrammarEdge& edge : grammar.EdgesOf(from)) {
        if (edge.kind == GrammarEdge::Kind::kBytes || !nullable[static_cast<size_t>(edge.to)]) {
          continue;
        }
        if (edge.kind == GrammarEdge::Kind::kCall &&
            !nullable[static_cast<size_t>(grammar.StartOf(edge.rule))]) {
          continue;
        }
        nullable[static_cast<size_t>(from)] = true;
        found.push_back(from);
        break;
      }
    }
  }
  return nullable;
}

// A rule that can call itself before it has taken a byte would be called without end.
Status GrammarBuilder::CheckLeftRecursion(const Grammar& grammar) const {
  const std::vector<bool> nullable = NullableNodes(grammar);
  std::vector<std::vector<RuleId>> calls(rules_.size());  // before any byte
  std::vector<int32_t> seen(static_cast<size_t>(num_nodes_), -1);
  for (RuleId rule = 0; rule < static_cast<RuleId>(rules_.size()); ++rule) {
    std::vector<NodeId> open = {StartOf(rule)};
    while (!open.empty()) {
      const NodeId node = open.back();
      open.pop_back();
      if (std::exchange(seen[static_cast<size_t>(node)], rule) == rule) continue;
      for (const GrammarEdge& edge : grammar.EdgesOf(node)) {
        if (edge.kind == GrammarEdge::Kind::kBytes) continue;
        if (edge.kind == GrammarEdge::Kind::kCall) {
          calls[static_cast<size_t>(rule)].push_back(edge.rule);
          if (!nullable[static_cast<size_t>(StartOf(edge.rule))]) continue;
        }
        open.push_back(edge.to);
      }
    }
  }
  // Rules whose every early call is to a settled rule are settled; what is left lies on a circle or
  // leads to one.
  std::vector<int32_t> unsettled(rules_.size());
  std::vector<std::vector<RuleId>> callers(rules_.size());
  std::vector<RuleId> settled;
  for (size_t rule = 0; rule < rules_.size(); ++rule) {
    auto& callees = calls[rule];
    std::sort(callees.begin(), callees.end());
    callees.erase(std::unique(callees.begin(), callees.end()), callees.end());
    unsettled[rule] = static_cast<int32_t>(callees.size());
    for (const RuleId callee : callees) {
      callers[static_cast<size_t>(callee)].push_back(static_cast<RuleId>(rule));
    }
    if (callees.empty()) settled.push_back(static_cast<RuleId>(rule));
  }
  while (!settled.empty()) {
    const RuleId rule = settled.back();
    settled.pop_back();
    for (const RuleId caller : callers[static_cast<size_t>(rule)]) {
      if (--unsettled[static_cast<size_t>(caller)] == 0) settled.push_back(caller);
    }
  }
  const auto is_unsettled = [&](size_t rule) { return unsettled[rule] > 0; };
  size_t on_circle = 0;
  while (on_circle < rules_.size() && !is_unsettled(on_circle)) ++on_circle;
  if (on_circle == rules_.size()) return absl::OkStatus();
  // From callee to unsettled callee there is no way out of the circle.
  for (size_t steps = 0; steps < rules_.size(); ++steps) {
    const auto& callees = calls[on_circle];
    on_circle =
        static_cast<size_t>(*std::find_if(callees.begin(), callees.end(), [&](RuleId callee) {
          return is_unsettled(static_cast<size_t>(callee));
        }));
  }
  return InvalidArgument(
      "%s: expected a rule that takes text before it comes back to itself, got left recursion",
      Quote(rules_[on_circle].name));
}

}  // namespace polyad
