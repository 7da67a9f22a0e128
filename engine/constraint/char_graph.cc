#include "engine/constraint/char_graph.h"

#include <algorithm>
#include <array>
#include <span>
#include <string>

#include "engine/text/utf8.h"

namespace polyad {
namespace {

constexpr char32_t kLast = 0x10FFFF;
constexpr char32_t kSurrogatesBegin = 0xD800;
constexpr char32_t kSurrogatesEnd = 0xE000;
constexpr uint8_t kContinuationLow = 0x80;
constexpr uint8_t kContinuationHigh = 0xBF;

bool AllAre(std::span<const uint8_t> bytes, uint8_t value) {
  return std::all_of(bytes.begin(), bytes.end(), [value](uint8_t byte) { return byte == value; });
}

// Every byte sequence between two of one length, the continuation bytes running from 80 to BF.
void EmitBetween(GrammarBuilder& builder, NodeId from, std::span<const uint8_t> low,
                 std::span<const uint8_t> high, NodeId to) {
  if (low.size() == 1) return builder.Bytes(from, low[0], high[0], to);
  const std::array<uint8_t, 3> lowest = {kContinuationLow, kContinuationLow, kContinuationLow};
  const std::array<uint8_t, 3> highest = {kContinuationHigh, kContinuationHigh, kContinuationHigh};
  const auto rest_low = std::span(lowest).first(low.size() - 1);
  const auto rest_high = std::span(highest).first(low.size() - 1);
  const auto branch = [&](uint8_t first, uint8_t last, std::span<const uint8_t> a,
                          std::span<const uint8_t> b) {
    const NodeId next = builder.AddNode();
    builder.Bytes(from, first, last, next);
    EmitBetween(builder, next, a, b, to);
  };
  if (low[0] == high[0]) return branch(low[0], low[0], low.subspan(1), high.subspan(1));
  int first = low[0];
  int last = high[0];
  if (!AllAre(low.subspan(1), kContinuationLow)) {
    branch(low[0], low[0], low.subspan(1), rest_high);
    ++first;
  }
  if (!AllAre(high.subspan(1), kContinuationHigh)) {
    branch(high[0], high[0], rest_low, high.subspan(1));
    --last;
  }
  if (first <= last) {
    branch(static_cast<uint8_t>(first), static_cast<uint8_t>(last), rest_low, rest_high);
  }
}

// Code points [first, last], none of them a surrogate, as UTF-8.
void EmitRange(GrammarBuilder& builder, NodeId from, char32_t first, char32_t last, NodeId to) {
  for (const char32_t longest : {char32_t{0x7F}, char32_t{0x7FF}, char32_t{0xFFFF}, kLast}) {
    if (first > last) return;
    if (first > longest) continue;
    const char32_t end = std::min(last, longest);
    const std::string low = Utf8FromChar(first);
    const std::string high = Utf8FromChar(end);
    EmitBetween(builder, from, {reinterpret_cast<const uint8_t*>(low.data()), low.size()},
                {reinterpret_cast<const uint8_t*>(high.data()), high.size()}, to);
    first = end + 1;
  }
}

}  // namespace

CharSet::CharSet(std::initializer_list<Range> ranges) {
  for (const Range& range : ranges) Add(range.first, range.second);
}

void CharSet::Add(char32_t first, char32_t last) {
  ranges_.emplace_back(first, last);
  std::sort(ranges_.begin(), ranges_.end());
  std::vector<Range> merged;
  for (const Range& range : ranges_) {
    if (!merged.empty() && range.first <= merged.back().second + 1) {
      merged.back().second = std::max(merged.back().second, range.second);
    } else {
      merged.push_back(range);
    }
  }
  ranges_ = std::move(merged);
}

void CharSet::Add(const CharSet& other) {
  for (const Range& range : other.ranges_) Add(range.first, range.second);
}

CharSet CharSet::Complement() const {
  CharSet out;
  char32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.first > next) out.ranges_.emplace_back(next, range.first - 1);
    next = range.second + 1;
  }
  if (next <= kLast) out.ranges_.emplace_back(next, kLast);
  return out;
}

bool CharSet::Contains(char32_t value) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [value](const Range& range) {
    return range.first <= value && value <= range.second;
  });
}

StatusOr<CharGraph> WithLength(const CharGraph& graph, int64_t min, int64_t max) {
  // Counted to the larger bound; without an upper one, `min` stands for all from there on.
  const int64_t last = max >= 0 ? max : min;
  const auto num_nodes = static_cast<int64_t>(graph.nodes.size());
  if (min > last || num_nodes > kMaxGrammarNodes || last >= kMaxGrammarNodes / num_nodes) {
    return InvalidArgument(
        "expected a pattern of at most %d states times lengths, got %d states and lengths to %d",
        kMaxGrammarNodes, num_nodes, last);
  }
  CharGraph out;
  out.sets = graph.sets;
  out.nodes.resize(static_cast<size_t>((last + 1) * num_nodes));
  const auto at = [&](int64_t length, int32_t node) {
    return static_cast<int32_t>(length * num_nodes + node);
  };
  for (int64_t length = 0; length <= last; ++length) {
    for (int32_t node = 0; node < num_nodes; ++node) {
      for (const CharGraph::Edge& edge : graph.nodes[static_cast<size_t>(node)]) {
        if (edge.set < 0) {
          out.AddEdge(at(length, node), -1, at(length, edge.to));
        } else if (length < last) {
          out.AddEdge(at(length, node), edge.set, at(length + 1, edge.to));
        } else if (max < 0) {
          out.AddEdge(at(length, node), edge.set, at(length, edge.to));
        }
      }
    }
  }
  out.start = at(0, graph.start);
  out.accept = out.AddNode();
  for (int64_t length = min; length <= last; ++length) {
    out.AddEdge(at(length, graph.accept), -1, out.accept);
  }
  return out;
}

NodeId CharRules::Emit(NodeId from, const CharSet& set, CharForm form) {
  const NodeId to = builder_.AddNode();
  Emit(from, set, form, to);
  return to;
}

void CharRules::Emit(NodeId from, const CharSet& set, CharForm form, NodeId to) {
  const bool is_plain =
      std::all_of(set.ranges().begin(), set.ranges().end(),
                  [](const auto& range) { return range.second < 0x7F && range.first > '\\'; });
  if (is_plain || (form == CharForm::kUtf8 && !set.empty() && set.ranges().back().second <= 0x7F)) {
    for (const auto& [first, last] : set.ranges()) {
      builder_.Bytes(from, static_cast<uint8_t>(first), static_cast<uint8_t>(last), to);
    }
    return;
  }
  const auto [entry, inserted] = rules_.try_emplace({form, set}, RuleId{-1});
  if (inserted) {
    const RuleId rule = builder_.AddRule("a character class");
    entry->second = rule;
    const NodeId start = builder_.StartOf(rule);
    const NodeId accept = builder_.AcceptOf(rule);
    if (form == CharForm::kUtf8) {
      EmitUtf8(start, set, accept);
    } else {
      EmitInJson(start, set, accept);
    }
  }
  builder_.Call(from, entry->second, to);
}

void CharRules::EmitUtf8(NodeId from, const CharSet& set, NodeId to) {
  for (const auto& [first, last] : set.ranges()) {
    if (first < kSurrogatesBegin) {
      EmitRange(builder_, from, first, std::min<char32_t>(last, kSurrogatesBegin - 1), to);
    }
    if (last >= kSurrogatesEnd) {
      EmitRange(builder_, from, std::max(first, kSurrogatesEnd), last, to);
    }
  }
}

// What must be escaped has one way to be written here, so that a pattern's automaton stays small.
void CharRules::EmitInJson(NodeId from, const CharSet& set, NodeId to) {
  CharSet escaped = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
  CharSet outside = set.Complement();
  outside.Add(escaped);
  EmitUtf8(from, outside.Complement(), to);
  constexpr std::string_view kNames = "\b\f\n\r\t\"\\";
  constexpr std::string_view kLetters = "bfnrt\"\\";
  const NodeId escape = builder_.AddNode();
  builder_.Bytes(from, '\\', '\\', escape);
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (!set.Contains(static_cast<unsigned char>(kNames[i]))) continue;
    builder_.Bytes(escape, static_cast<uint8_t>(kLetters[i]), static_cast<uint8_t>(kLetters[i]),
                   to);
  }
  for (char32_t value = 0; value < 0x20; ++value) {
    if (!set.Contains(value) || kNames.find(static_cast<char>(value)) != kNames.npos) continue;
    constexpr std::string_view kHex = "0123456789abcdef";
    const NodeId digits = builder_.Literal(escape, std::string("u00") + (value < 16 ? '0' : '1'));
    const auto last = static_cast<uint8_t>(kHex[value & 15]);
    builder_.Bytes(digits, last, last, to);
  }
}

NodeId CharRules::Emit(NodeId from, const CharGraph& graph, CharForm form) {
  std::vector<NodeId> nodes;
  for (size_t i = 0; i < graph.nodes.size() && !builder_.full(); ++i) {
    nodes.push_back(builder_.AddNode());
  }
  if (builder_.full()) return from;
  builder_.Empty(from, nodes[static_cast<size_t>(graph.start)]);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const CharGraph::Edge& edge : graph.nodes[i]) {
      const NodeId to = nodes[static_cast<size_t>(edge.to)];
      if (edge.set < 0) {
        builder_.Empty(nodes[i], to);
      } else {
        Emit(nodes[i], graph.sets[static_cast<size_t>(edge.set)], form, to);
      }
    }
  }
  return nodes[static_cast<size_t>(graph.accept)];
}

}  // namespace polyad
