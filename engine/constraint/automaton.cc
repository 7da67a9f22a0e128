#include "engine/constraint/automaton.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"

namespace polyad {
namespace {

constexpr Automaton::StateId kUnknown = -1;
constexpr size_t kVisitedSlots = 8192;  // a power of two, above twice kMaxVisited
constexpr size_t kMaxVisited = 4000;    // items of one closure, those without bytes too

uint64_t Mix(uint64_t hash, uint64_t value) {
  hash ^= value + 0x9E3779B97F4A7C15ull + (hash << 6) + (hash >> 2);
  return hash * 0xBF58476D1CE4E5B9ull;
}

uint64_t Pack(int32_t high, int32_t low) {
  return static_cast<uint64_t>(static_cast<uint32_t>(high)) << 32 | static_cast<uint32_t>(low);
}

}  // namespace

Automaton::Automaton(std::shared_ptr<const Grammar> grammar, int64_t work)
    : grammar_(std::move(grammar)),
      num_classes_(static_cast<size_t>(grammar_->num_classes())),
      visited_(kVisitedSlots),
      stamps_(kVisitedSlots, 0) {
  AllowWork(work);
  frames_.push_back({});
  states_.push_back({});  // kDead
  transitions_.assign(num_classes_, kDead);
  ++stamp_;
  AddClosure({grammar_->StartOf(grammar_->root()), 0});
  const StateId start = Intern();
  POLYAD_CHECK(start == kStart || !status_.ok(), "a grammar that was built has a text");
  if (start == kDead) {  // too many items at the very beginning
    states_.push_back({});
    transitions_.resize(2 * num_classes_, kDead);
  }
}

void Automaton::Explore(int64_t work) {
  const int64_t until = work_ + work;
  for (StateId state = kStart; state < num_states() && status_.ok(); ++state) {
    for (int32_t byte_class = 1; byte_class < grammar_->num_classes(); ++byte_class) {
      Next(state, grammar_->ByteOfClass(byte_class));
      if (work_ >= until) return;
    }
  }
}

Automaton::StateId Automaton::Fill(StateId state, size_t at) {
  if (!status_.ok()) return kDead;
  const auto byte_class = static_cast<int32_t>(at % num_classes_);
  const uint8_t byte = grammar_->ByteOfClass(byte_class);
  ++work_;
  if (++stamp_ == 0) {
    std::fill(stamps_.begin(), stamps_.end(), 0);
    stamp_ = 1;
  }
  num_visited_ = 0;
  found_.clear();
  accepts_ = false;
  if (byte_class != 0) {
    const State from = states_[static_cast<size_t>(state)];
    for (int32_t i = from.begin; i < from.end; ++i) {
      const Item item = items_[static_cast<size_t>(i)];
      for (const GrammarEdge& edge : grammar_->EdgesOf(item.node)) {
        const bool takes =
            edge.kind == GrammarEdge::Kind::kBytes && edge.low <= byte && byte <= edge.high;
        if (takes && Viable(edge.to, item.stack)) AddClosure({edge.to, item.stack});
      }
    }
  }
  const StateId next = Intern();
  if (status_.ok()) transitions_[at] = next;
  return next;
}

bool Automaton::Viable(NodeId node, int32_t stack) const {
  return frames_[static_cast<size_t>(stack)].depth + grammar_->Need(node) <= kMaxCallDepth;
}

// All that the item reaches without a byte; of it, what can take one joins found_.
void Automaton::AddClosure(Item first) {
  Visit(first);
  while (!open_.empty() && status_.ok()) {
    const Item item = open_.back();
    open_.pop_back();
    ++work_;
    bool takes_bytes = false;
    for (const GrammarEdge& edge : grammar_->EdgesOf(item.node)) {
      if (edge.kind == GrammarEdge::Kind::kBytes) {
        takes_bytes = takes_bytes || Viable(edge.to, item.stack);
      } else {
        Follow(edge, item.stack);
      }
    }
    if (takes_bytes) found_.push_back(item);
    if (!grammar_->Accepts(item.node)) continue;
    if (item.stack == 0) {
      accepts_ = true;
    } else {
      const Frame& frame = frames_[static_cast<size_t>(item.stack)];
      Visit({frame.back_to, frame.below});
    }
  }
  open_.clear();
  if (work_ > most_work_) Exhaust("steps", most_work_);
}

void Automaton::Follow(const GrammarEdge& edge, int32_t stack) {
  if (!Viable(edge.to, stack)) return;
  if (edge.kind == GrammarEdge::Kind::kEmpty) {
    Visit({edge.to, stack});
    return;
  }
  const NodeId start = grammar_->StartOf(edge.rule);
  if (edge.is_tail) {
    if (Viable(start, stack)) Visit({start, stack});
    return;
  }
  const int32_t depth = frames_[static_cast<size_t>(stack)].depth + 1;
  if (depth + grammar_->Need(start) > kMaxCallDepth) return;
  Visit({start, Push(edge.to, stack)});
}

void Automaton::Visit(Item item) {
  size_t slot = Mix(0, Pack(item.node, item.stack)) >> 20 & (kVisitedSlots - 1);
  while (stamps_[slot] == stamp_) {
    if (visited_[slot] == item) return;
    slot = (slot + 1) & (kVisitedSlots - 1);
  }
  if (num_visited_ >= kMaxVisited) return Exhaust("places at once", kMaxVisited);
  ++num_visited_;
  stamps_[slot] = stamp_;
  visited_[slot] = item;
  open_.push_back(item);
}

int32_t Automaton::Push(NodeId back_to, int32_t below) {
  const auto [entry, inserted] =
      frames_by_content_.try_emplace(Pack(back_to, below), static_cast<int32_t>(frames_.size()));
  if (!inserted) return entry->second;
  if (static_cast<int64_t>(frames_.size()) >= kMaxAutomatonStacks) {
    Exhaust("stacks", kMaxAutomatonStacks);
  }
  frames_.push_back({back_to, below, frames_[static_cast<size_t>(below)].depth + 1});
  return entry->second;
}

// The state that found_ and accepts_ make: a known one, or a new one.
Automaton::StateId Automaton::Intern() {
  if (!status_.ok() || (found_.empty() && !accepts_)) return kDead;
  std::sort(found_.begin(), found_.end());
  uint64_t hash = accepts_ ? 1 : 0;
  for (const Item& item : found_) hash = Mix(hash, Pack(item.node, item.stack));
  const auto [first, last] = states_by_hash_.equal_range(hash);
  for (auto known = first; known != last; ++known) {
    const State& state = states_[static_cast<size_t>(known->second)];
    if (state.accepts == accepts_ &&
        std::equal(items_.begin() + state.begin, items_.begin() + state.end, found_.begin(),
                   found_.end())) {
      return known->second;
    }
  }
  if (found_.size() > kMaxStateItems) Exhaust("places at once", kMaxStateItems);
  if (num_states() >= kMaxAutomatonStates) Exhaust("states", kMaxAutomatonStates);
  if (static_cast<int64_t>(items_.size() + found_.size()) > kMaxAutomatonItems) {
    Exhaust("places", kMaxAutomatonItems);
  }
  if (static_cast<int64_t>(transitions_.size() + num_classes_) > kMaxAutomatonTransitions) {
    Exhaust("transitions", kMaxAutomatonTransitions);
  }
  if (!status_.ok()) return kDead;
  const auto id = static_cast<StateId>(states_.size());
  const auto begin = static_cast<int32_t>(items_.size());
  items_.insert(items_.end(), found_.begin(), found_.end());
  states_.push_back({begin, static_cast<int32_t>(items_.size()), accepts_});
  transitions_.resize(transitions_.size() + num_classes_, kUnknown);
  transitions_[static_cast<size_t>(id) * num_classes_] = kDead;
  states_by_hash_.emplace(hash, id);
  return id;
}

void Automaton::Exhaust(const char* what, int64_t limit) {
  if (status_.ok()) {
    status_ = ResourceExhausted("constraint: expected an automaton of at most %d %s, got more",
                                limit, what);
  }
}

}  // namespace polyad
