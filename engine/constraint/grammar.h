#pragma once

// The one form that every constraint lowers to: a context-free grammar over bytes, written as a
// recursive transition network. A rule is a small graph of nodes from its start to its accept;
// edges take one byte of a range, take nothing, or call a rule and go on behind it. A call whose
// target ends the rule leaves nothing behind (a tail call), so that right recursion needs no depth.
// Build refuses left recursion, what no text satisfies and what passes the limits (INVALID_ARGUMENT
// with the rule's name), and computes for every node how many nested calls its rule needs at least
// to end. A Grammar is immutable. Source: Woods 1970 (transition networks).

#include <array>
#include <bitset>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"

namespace polyad {

using NodeId = int32_t;
using RuleId = int32_t;
using ByteSet = std::bitset<256>;

inline constexpr int64_t kMaxGrammarNodes = 50'000;
inline constexpr int64_t kMaxGrammarEdges = 400'000;
inline constexpr int32_t kMaxCallDepth = 128;  // calls open at once while a text is read

struct GrammarEdge {
  enum class Kind : uint8_t { kBytes, kEmpty, kCall };
  Kind kind = Kind::kEmpty;
  uint8_t low = 0;  // of kBytes: [low, high]
  uint8_t high = 0;
  bool is_tail = false;  // of kCall: nothing follows it in its rule
  RuleId rule = -1;      // of kCall
  NodeId to = 0;
};

class Grammar {
 public:
  std::span<const GrammarEdge> EdgesOf(NodeId node) const {
    const auto at = static_cast<size_t>(node);
    return {edges_.data() + edges_begin_[at],
            static_cast<size_t>(edges_begin_[at + 1] - edges_begin_[at])};
  }
  bool Accepts(NodeId node) const { return accepts_[static_cast<size_t>(node)]; }
  // Calls that must be open at once, at least, for the node's rule to end; above kMaxCallDepth:
  // never.
  int32_t Need(NodeId node) const { return need_[static_cast<size_t>(node)]; }
  NodeId StartOf(RuleId rule) const { return starts_[static_cast<size_t>(rule)]; }
  RuleId root() const { return root_; }
  int64_t num_nodes() const { return static_cast<int64_t>(accepts_.size()); }

  // Bytes that no edge tells apart are one class; class 0 takes no edge at all.
  int32_t ClassOf(uint8_t byte) const { return classes_[byte]; }
  int32_t num_classes() const { return num_classes_; }
  uint8_t ByteOfClass(int32_t byte_class) const {
    return representatives_[static_cast<size_t>(byte_class)];
  }

 private:
  friend class GrammarBuilder;
  std::vector<GrammarEdge> edges_;
  std::vector<int32_t> edges_begin_;  // [num_nodes + 1]
  std::vector<bool> accepts_;
  std::vector<int32_t> need_;
  std::vector<NodeId> starts_;  // by rule
  RuleId root_ = 0;
  std::array<int32_t, 256> classes_{};
  int32_t num_classes_ = 1;
  std::vector<uint8_t> representatives_;
};

// Emitters take the node to go on from and return the one where they ended; they never lead back
// into the first, so alternatives may begin at one node. Past the limits everything is a no-op,
// `full` tells, and Build refuses.
class GrammarBuilder {
 public:
  RuleId AddRule(std::string name);
  NodeId AddNode();
  NodeId StartOf(RuleId rule) const { return rules_[static_cast<size_t>(rule)].start; }
  NodeId AcceptOf(RuleId rule) const { return rules_[static_cast<size_t>(rule)].accept; }

  void Bytes(NodeId from, uint8_t low, uint8_t high, NodeId to);
  void Empty(NodeId from, NodeId to);
  void Call(NodeId from, RuleId rule, NodeId to);

  NodeId Literal(NodeId from, std::string_view text);
  NodeId OneOf(NodeId from, std::string_view bytes);
  NodeId CallRule(NodeId from, RuleId rule);
  // `emit` from min to max times (max < 0: without end).
  template <typename Emit>
  NodeId Repeat(NodeId from, int64_t min, int64_t max, const Emit& emit) {
    NodeId at = from;
    for (int64_t i = 0; i < min && !full(); ++i) at = emit(at);
    const NodeId end = AddNode();
    Empty(at, end);
    if (max < 0) {
      Empty(emit(end), end);
      return end;
    }
    for (int64_t i = min; i < max && !full(); ++i) {
      at = emit(at);
      Empty(at, end);
    }
    return end;
  }

  bool full() const { return full_; }
  int64_t num_nodes() const { return num_nodes_; }

  // `usable`: the bytes that some token can bring alone; edges take no other.
  StatusOr<Grammar> Build(RuleId root, const ByteSet& usable);

 private:
  struct Rule {
    std::string name;
    NodeId start = 0;
    NodeId accept = 0;
  };
  struct Draft {
    NodeId from = 0;
    GrammarEdge edge;
  };
  void Add(NodeId from, GrammarEdge edge);
  void SortEdges(const ByteSet& usable, Grammar& out) const;
  void ClassifyBytes(const ByteSet& usable, Grammar& out) const;
  void ComputeNeeds(Grammar& out) const;
  std::vector<bool> NullableNodes(const Grammar& grammar) const;
  Status CheckLeftRecursion(const Grammar& grammar) const;

  std::vector<Rule> rules_;
  std::vector<Draft> edges_;
  int64_t num_nodes_ = 0;
  bool full_ = false;
};

}  // namespace polyad
