#pragma once

// Sets of Unicode code points, a small graph over them (what a regular expression becomes), and
// how both go into a byte grammar: as UTF-8, or as the inside of a JSON string, where quotes,
// backslashes and control characters are written as escapes. Values, built by one thread.
// CharRules keeps one rule for each set, so that a class costs its nodes once.

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "engine/constraint/grammar.h"

namespace polyad {

class CharSet {
 public:
  using Range = std::pair<char32_t, char32_t>;  // [first, last]

  CharSet() = default;
  CharSet(std::initializer_list<Range> ranges);
  static CharSet All() { return {{0, 0x10FFFF}}; }

  void Add(char32_t first, char32_t last);
  void Add(const CharSet& other);
  CharSet Complement() const;
  bool Contains(char32_t value) const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<Range>& ranges() const { return ranges_; }  // sorted, apart
  friend auto operator<=>(const CharSet&, const CharSet&) = default;

 private:
  std::vector<Range> ranges_;
};

// Edges without a set take nothing.
struct CharGraph {
  struct Edge {
    int32_t set = -1;
    int32_t to = 0;
  };
  std::vector<std::vector<Edge>> nodes;
  std::vector<CharSet> sets;
  int32_t start = 0;
  int32_t accept = 0;

  int32_t AddNode() {
    nodes.emplace_back();
    return static_cast<int32_t>(nodes.size()) - 1;
  }
  void AddEdge(int32_t from, int32_t set, int32_t to) {
    nodes[static_cast<size_t>(from)].push_back({set, to});
  }
};

// The texts of `graph` with at least `min` and, where max >= 0, at most `max` characters.
// INVALID_ARGUMENT where that takes more than kMaxGrammarNodes nodes.
StatusOr<CharGraph> WithLength(const CharGraph& graph, int64_t min, int64_t max);

enum class CharForm { kUtf8, kInJsonString };

class CharRules {
 public:
  explicit CharRules(GrammarBuilder& builder) : builder_(builder) {}

  // One character of the set.
  NodeId Emit(NodeId from, const CharSet& set, CharForm form);
  void Emit(NodeId from, const CharSet& set, CharForm form, NodeId to);
  NodeId Emit(NodeId from, const CharGraph& graph, CharForm form);

 private:
  void EmitUtf8(NodeId from, const CharSet& set, NodeId to);
  void EmitInJson(NodeId from, const CharSet& set, NodeId to);

  GrammarBuilder& builder_;
  std::map<std::pair<CharForm, CharSet>, RuleId> rules_;
};

}  // namespace polyad
