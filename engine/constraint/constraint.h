#pragma once

// What holds a request's output to a form: an automaton over bytes and, for each of its states,
// the mask of the tokens that may come next. Compile runs on the caller's thread, bounded, and
// fills in the first states; from then on a Constraint is the engine thread's alone, which steps it
// and makes masks as it needs them. Requests that ask for the same form share one; a sequence holds
// its ConstraintState. An automaton that reached its limits is begun anew, and sequences find their
// place in it by their output. Masks live in a cache of kMaxMaskBytes; one that Mask returned is
// good until the next call. Errors: INVALID_ARGUMENT (with the field's name) for what cannot be
// served, RESOURCE_EXHAUSTED for a form whose masks take more work than the engine thread has.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/base/status.h"
#include "engine/constraint/automaton.h"
#include "engine/constraint/token_trie.h"
#include "engine/request/constraint_spec.h"

namespace polyad {

inline constexpr size_t kMaxMaskBytes = 1 << 20;
// Places that filling in transitions may visit (docs/notes has what they take): in Compile; then
// on the engine thread, in all and for each mask besides, and for any one mask.
inline constexpr int64_t kExploreWork = 20'000;
inline constexpr int64_t kBaseWork = 1'000'000;
inline constexpr int64_t kWorkPerMask = 20'000;
inline constexpr int64_t kMaxMaskWork = 200'000;

// Where a sequence's output stands. Good for the automaton of its generation.
struct ConstraintState {
  int32_t id = 1;
  int64_t generation = 0;
};

class Constraint {
 public:
  // `trie` outlives it. `spec` is not empty.
  static StatusOr<std::shared_ptr<Constraint>> Compile(const ConstraintSpec& spec,
                                                       std::shared_ptr<const TokenTrie> trie);
  Constraint(Grammar grammar, std::shared_ptr<const TokenTrie> trie);

  // One bit for each id of the vocabulary that may come behind `output`, which `state` stands for.
  // Control tokens have none: whoever samples adds those that end an output, where Accepts says so.
  StatusOr<std::span<const uint64_t>> Mask(std::span<const int32_t> output, ConstraintState& state);
  // `output` has one more token, of the mask of `state`.
  void Advance(std::span<const int32_t> output, ConstraintState& state);
  // The output may end here; it must, for nothing can follow. Of a state just advanced or masked.
  bool Accepts(const ConstraintState& state) const { return automaton_->Accepts(state.id); }
  bool IsFinal(const ConstraintState& state) const { return automaton_->IsFinal(state.id); }

  const Automaton& automaton() const { return *automaton_; }

 private:
  using StateId = Automaton::StateId;
  std::span<const uint64_t> MaskOf(StateId state);
  void FillMask(StateId state, std::span<uint64_t> mask);
  void CatchUp(std::span<const int32_t> output, ConstraintState& state);
  StateId Read(int32_t token, StateId state);
  void BeginAnew();

  const std::shared_ptr<const Grammar> grammar_;
  const std::shared_ptr<const TokenTrie> trie_;
  std::optional<Automaton> automaton_;
  int64_t generation_ = 0;
  int64_t earlier_work_ = 0;  // of the automata before
  int64_t num_asked_ = 0;     // masks

  const size_t mask_words_;
  std::vector<uint64_t> masks_;           // [slots, mask_words_]
  std::vector<StateId> states_of_slots_;  // oldest overwritten first
  std::unordered_map<StateId, size_t> slots_;
  size_t next_slot_ = 0;
  std::vector<StateId> path_;  // states along a walk, by depth
};

}  // namespace polyad
