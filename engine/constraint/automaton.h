#pragma once

// Reads a text against a Grammar byte by byte. A state is the set of all (node, stack of open
// calls) that the text so far may stand at; sets and stacks are interned and the transitions
// between states are filled in as they are first needed, so that the regular parts of a grammar run
// as a table look-up a byte (subset construction on demand, as RE2 has it) and recursion only adds
// stacks. Every state but kDead can be completed within the limits: what cannot never becomes part
// of one. Deterministic: ids may differ with the order of use, what they accept does not. One
// thread at a time. Past its limits an Automaton is exhausted for good: Next answers kDead and
// `status` says RESOURCE_EXHAUSTED.

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/base/status.h"
#include "engine/constraint/grammar.h"

namespace polyad {

inline constexpr int64_t kMaxAutomatonStates = 50'000;
inline constexpr int64_t kMaxAutomatonTransitions = 4 << 20;  // states x byte classes
inline constexpr int64_t kMaxAutomatonItems = 1 << 20;        // of all states together
inline constexpr size_t kMaxStateItems = 512;                 // of one state
inline constexpr int64_t kMaxAutomatonStacks = 200'000;

class Automaton {
 public:
  using StateId = int32_t;
  static constexpr StateId kDead = 0;
  static constexpr StateId kStart = 1;

  // `work`: as AllowWork.
  Automaton(std::shared_ptr<const Grammar> grammar, int64_t work);

  StateId Next(StateId state, uint8_t byte) {
    const size_t at =
        static_cast<size_t>(state) * num_classes_ + static_cast<size_t>(grammar_->ClassOf(byte));
    const StateId known = transitions_[at];
    return known >= 0 ? known : Fill(state, at);
  }
  // The text so far satisfies the grammar.
  bool Accepts(StateId state) const { return states_[static_cast<size_t>(state)].accepts; }
  // So it does, and no byte can follow.
  bool IsFinal(StateId state) const {
    const State& of = states_[static_cast<size_t>(state)];
    return of.accepts && of.begin == of.end;
  }

  // Fills in what the first states need, within `work`: called where time is nobody else's.
  void Explore(int64_t work);

  // From here on, the places that filling in may visit before the automaton is exhausted.
  void AllowWork(int64_t work) { most_work_ = work_ + work; }

  const Status& status() const { return status_; }
  int64_t num_states() const { return static_cast<int64_t>(states_.size()); }
  int64_t work() const { return work_; }

 private:
  struct Item {
    NodeId node = 0;
    int32_t stack = 0;
    friend auto operator<=>(const Item&, const Item&) = default;
  };
  struct Frame {  // an open call; 0 is the empty stack
    NodeId back_to = 0;
    int32_t below = 0;
    int32_t depth = 0;
  };
  struct State {
    int32_t begin = 0;  // of items_
    int32_t end = 0;
    bool accepts = false;
  };

  StateId Fill(StateId state, size_t at);
  void AddClosure(Item first);
  void Visit(Item item);
  void Follow(const GrammarEdge& edge, int32_t stack);
  bool Viable(NodeId node, int32_t stack) const;
  int32_t Push(NodeId back_to, int32_t below);
  StateId Intern();
  void Exhaust(const char* what, int64_t limit);

  const std::shared_ptr<const Grammar> grammar_;
  const size_t num_classes_;
  std::vector<StateId> transitions_;  // [states, classes]; -1: not filled in
  std::vector<State> states_;
  std::vector<Item> items_;
  std::unordered_multimap<uint64_t, StateId> states_by_hash_;
  std::vector<Frame> frames_;
  std::unordered_map<uint64_t, int32_t> frames_by_content_;
  int64_t work_ = 0;
  int64_t most_work_ = 0;
  Status status_;

  // Of the transition being filled in.
  std::vector<Item> found_;
  std::vector<Item> open_;
  std::vector<Item> visited_;     // open addressing, by hash
  std::vector<uint32_t> stamps_;  // [visited_] the transition that put it there
  uint32_t stamp_ = 0;
  size_t num_visited_ = 0;
  bool accepts_ = false;
};

}  // namespace polyad
