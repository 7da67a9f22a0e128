#include "engine/constraint/constraint.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/base/check.h"
#include "engine/constraint/ebnf.h"
#include "engine/constraint/json_schema.h"
#include "engine/constraint/regex.h"
#include "engine/constraint/tool_calls.h"
#include "engine/text/utf8.h"

namespace polyad {
namespace {

Status CheckText(const std::string& text, int64_t max_bytes) {
  if (static_cast<int64_t>(text.size()) > max_bytes) {
    return InvalidArgument("expected at most %d bytes, got %d", max_bytes, text.size());
  }
  if (!IsValidUtf8(text)) return InvalidArgument("expected UTF-8");
  return absl::OkStatus();
}

StatusOr<RuleId> LowerRegex(const std::string& pattern, JsonValues& values) {
  POLYAD_RETURN_IF_ERROR(CheckText(pattern, kMaxRegexBytes));
  POLYAD_ASSIGN_OR_RETURN(const CharGraph graph, ParseRegex(pattern, RegexUse::kWhole));
  GrammarBuilder& builder = values.builder();
  const RuleId rule = builder.AddRule("the expression");
  builder.Empty(values.chars().Emit(builder.StartOf(rule), graph, CharForm::kUtf8),
                builder.AcceptOf(rule));
  return rule;
}

StatusOr<RuleId> LowerChoice(const std::vector<std::string>& options, GrammarBuilder& builder) {
  const auto count = static_cast<int64_t>(options.size());
  if (count < 1 || count > kMaxChoiceOptions) {
    return InvalidArgument("expected 1 to %d options, got %d", kMaxChoiceOptions, count);
  }
  const RuleId rule = builder.AddRule("the choice");
  for (const std::string& option : options) {
    POLYAD_RETURN_IF_ERROR(CheckText(option, kMaxChoiceBytes));
    builder.Empty(builder.Literal(builder.StartOf(rule), option), builder.AcceptOf(rule));
  }
  return rule;
}

StatusOr<RuleId> Lower(const ConstraintSpec& spec, GrammarBuilder& builder) {
  JsonValues values(builder);
  switch (spec.kind) {
    case ConstraintSpec::Kind::kNone:
      break;
    case ConstraintSpec::Kind::kJsonSchema:
      return LowerJsonSchema(spec.text, values);
    case ConstraintSpec::Kind::kJsonObject:
      return values.AnyObject();
    case ConstraintSpec::Kind::kRegex:
      return LowerRegex(spec.text, values);
    case ConstraintSpec::Kind::kChoice:
      return LowerChoice(spec.options, builder);
    case ConstraintSpec::Kind::kGrammar:
      POLYAD_RETURN_IF_ERROR(CheckText(spec.text, kMaxGrammarBytes));
      return LowerEbnf(spec.text, builder, values.chars());
    case ConstraintSpec::Kind::kToolCalls:
      return LowerToolCalls(spec.tools, spec.several, values);
  }
  return InvalidArgument("expected a constraint, got none");
}

const char* FieldOf(ConstraintSpec::Kind kind) {
  switch (kind) {
    case ConstraintSpec::Kind::kNone:
      return "constraint";
    case ConstraintSpec::Kind::kJsonSchema:
      return "constraint.json_schema";
    case ConstraintSpec::Kind::kJsonObject:
      return "constraint.json_object";
    case ConstraintSpec::Kind::kRegex:
      return "constraint.regex";
    case ConstraintSpec::Kind::kChoice:
      return "constraint.choice";
    case ConstraintSpec::Kind::kGrammar:
      return "constraint.grammar";
    case ConstraintSpec::Kind::kToolCalls:
      return "constraint.tool_calls";
  }
  return "constraint";
}

}  // namespace

StatusOr<std::shared_ptr<Constraint>> Constraint::Compile(const ConstraintSpec& spec,
                                                          std::shared_ptr<const TokenTrie> trie) {
  GrammarBuilder builder;
  const char* field = FieldOf(spec.kind);
  StatusOr<RuleId> root = Lower(spec, builder);
  if (!root.ok()) return Annotate(root.status(), field);
  StatusOr<Grammar> grammar = builder.Build(*root, trie->single_bytes());
  if (!grammar.ok()) return Annotate(grammar.status(), field);
  auto constraint = std::make_shared<Constraint>(*std::move(grammar), std::move(trie));
  constraint->automaton_->Explore(kExploreWork);
  ConstraintState state;
  const StatusOr<std::span<const uint64_t>> first = constraint->Mask({}, state);
  if (!first.ok()) return InvalidArgument("%s: %s", field, first.status().message());
  return constraint;
}

Constraint::Constraint(Grammar grammar, std::shared_ptr<const TokenTrie> trie)
    : grammar_(std::make_shared<const Grammar>(std::move(grammar))),
      trie_(std::move(trie)),
      mask_words_(static_cast<size_t>(trie_->vocab_size() + 63) / 64),
      path_(static_cast<size_t>(trie_->max_depth()) + 1) {
  automaton_.emplace(grammar_, kMaxMaskWork);
  const size_t mask_bytes = sizeof(uint64_t) * std::max<size_t>(mask_words_, 1);
  states_of_slots_.assign(std::max<size_t>(kMaxMaskBytes / mask_bytes, 1), Automaton::kDead);
}

StatusOr<std::span<const uint64_t>> Constraint::Mask(std::span<const int32_t> output,
                                                     ConstraintState& state) {
  ++num_asked_;
  if (earlier_work_ + automaton_->work() > kBaseWork + num_asked_ * kWorkPerMask) {
    return ResourceExhausted("constraint: expected one whose masks take at most %d steps, got more",
                             kWorkPerMask);
  }
  automaton_->AllowWork(kMaxMaskWork);
  CatchUp(output, state);
  std::span<const uint64_t> mask = MaskOf(state.id);
  if (automaton_->status().ok()) return mask;
  BeginAnew();
  CatchUp(output, state);
  mask = MaskOf(state.id);
  if (!automaton_->status().ok()) return automaton_->status();
  return mask;
}

void Constraint::Advance(std::span<const int32_t> output, ConstraintState& state) {
  if (state.generation != generation_) return CatchUp(output, state);
  state.id = Read(output.back(), state.id);
}

void Constraint::CatchUp(std::span<const int32_t> output, ConstraintState& state) {
  if (state.generation == generation_) return;
  state = {Automaton::kStart, generation_};
  for (const int32_t token : output) state.id = Read(token, state.id);
}

Constraint::StateId Constraint::Read(int32_t token, StateId state) {
  for (const char byte : trie_->BytesOf(token)) {
    state = automaton_->Next(state, static_cast<uint8_t>(byte));
  }
  return state;
}

void Constraint::BeginAnew() {
  earlier_work_ += automaton_->work();
  ++generation_;
  automaton_.emplace(grammar_, kMaxMaskWork);
  slots_.clear();
  std::fill(states_of_slots_.begin(), states_of_slots_.end(), Automaton::kDead);
}

std::span<const uint64_t> Constraint::MaskOf(StateId state) {
  const auto [entry, inserted] = slots_.try_emplace(state, next_slot_);
  const size_t begin = entry->second * mask_words_;
  if (!inserted) return std::span<const uint64_t>(masks_).subspan(begin, mask_words_);
  StateId& occupant = states_of_slots_[next_slot_];
  if (occupant != Automaton::kDead) slots_.erase(occupant);
  occupant = state;
  next_slot_ = (next_slot_ + 1) % states_of_slots_.size();
  masks_.resize(std::max(masks_.size(), begin + mask_words_));
  const std::span<uint64_t> mask = std::span(masks_).subspan(begin, mask_words_);
  FillMask(state, mask);
  return mask;
}

// The trie in preorder, each node's state from its parent's: one look-up a node, and a jump over
// every subtree that the automaton does not take.
void Constraint::FillMask(StateId state, std::span<uint64_t> mask) {
  std::fill(mask.begin(), mask.end(), 0);
  const std::span<const TokenTrie::Node> nodes = trie_->nodes();
  const std::span<const int32_t> tokens = trie_->tokens();
  path_[0] = state;
  for (size_t i = 0; i < nodes.size();) {
    const TokenTrie::Node& node = nodes[i];
    const StateId next = automaton_->Next(path_[static_cast<size_t>(node.depth) - 1], node.byte);
    if (next == Automaton::kDead) {
      i = static_cast<size_t>(node.skip_to);
      continue;
    }
    path_[static_cast<size_t>(node.depth)] = next;
    for (int32_t t = i == 0 ? 0 : nodes[i - 1].tokens_end; t < node.tokens_end; ++t) {
      const auto id = static_cast<size_t>(tokens[static_cast<size_t>(t)]);
      mask[id / 64] |= uint64_t{1} << (id % 64);
    }
    ++i;
  }
}

}  // namespace polyad
