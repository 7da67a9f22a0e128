#include "engine/constraint/automaton.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "engine/constraint/constraint_cache.h"
#include "tests/engine/constraint/byte_tokenizer.h"

namespace polyad {
namespace {

using Kind = ConstraintSpec::Kind;

std::vector<int32_t> Allowed(std::span<const uint64_t> mask) {
  std::vector<int32_t> ids;
  for (size_t id = 0; id < mask.size() * 64; ++id) {
    if (mask[id / 64] >> (id % 64) & 1) ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

// What a mask means, told by reading each token alone.
std::vector<int32_t> AllowedOneByOne(Constraint& constraint, std::vector<int32_t> output,
                                     const ByteTokenizer& tokenizer) {
  std::string before;
  for (const int32_t id : output) before += tokenizer.TokenBytes(id);
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < tokenizer.end(); ++id) {
    ConstraintState state;
    std::vector<int32_t> bytes;
    bool lives = true;
    for (const char c : before + std::string(tokenizer.TokenBytes(id))) {
      const auto mask = *constraint.Mask(bytes, state);
      const auto byte = static_cast<uint8_t>(c);
      lives = lives && (mask[byte / 64] >> (byte % 64) & 1) != 0;
      bytes.push_back(byte);
      if (!lives) break;
      constraint.Advance(bytes, state);
    }
    if (lives) ids.push_back(id);
  }
  return ids;
}

TEST(Constraint, AMaskHoldsTheTokensWhoseBytesMayFollow) {
  const ByteTokenizer tokenizer;
  ConstraintSpec choice{.kind = Kind::kChoice, .options = {"abcd", "ab", "true", "\xE2\x82\xAC"}};
  const auto constraint = *Constraint::Compile(choice, ByteTrie());
  ConstraintState state;
  std::vector<int32_t> output;
  EXPECT_EQ(Allowed(*constraint->Mask(output, state)),
            AllowedOneByOne(*constraint, output, tokenizer));
  output = {'a'};
  constraint->Advance(output, state);
  EXPECT_EQ(Allowed(*constraint->Mask(output, state)), std::vector<int32_t>{'b'});
  EXPECT_FALSE(constraint->Accepts(state));
  output = {'a', 'b'};
  constraint->Advance(output, state);
  EXPECT_TRUE(constraint->Accepts(state));
  EXPECT_FALSE(constraint->IsFinal(state));
  for (const int32_t id : {'c', 'd'}) {
    output.push_back(id);
    constraint->Advance(output, state);
  }
  EXPECT_TRUE(constraint->IsFinal(state));
}

// Random tokens out of the masks: every output is accepted, or was cut in its middle.
TEST(Constraint, WhateverIsDrawnFromMasksIsAccepted) {
  const ByteTokenizer tokenizer;
  const auto constraint = *CompileText(Kind::kJsonObject, "");
  std::mt19937 random(7);
  int num_ended = 0;
  for (int run = 0; run < 40; ++run) {
    ConstraintState state;
    std::vector<int32_t> output;
    for (int step = 0; step < 60; ++step) {
      const std::vector<int32_t> allowed = Allowed(*constraint->Mask(output, state));
      if (constraint->IsFinal(state)) break;
      ASSERT_FALSE(allowed.empty());
      if (step % 20 == 0) {
        EXPECT_EQ(allowed, AllowedOneByOne(*constraint, output, tokenizer));
      }
      output.push_back(allowed[random() % allowed.size()]);
      constraint->Advance(output, state);
    }
    num_ended += constraint->IsFinal(state);
  }
  EXPECT_GT(num_ended, 5);
}

TEST(Constraint, AnAutomatonBegunAnewGoesOnWhereItWas) {
  // Each length of the run before the x is a state of its own, and the last thirteen choices too.
  const auto constraint = *CompileText(Kind::kRegex, "[ab]*a[ab]{13}x");
  ConstraintState state;
  std::vector<int32_t> output;
  std::mt19937 random(11);
  bool was_begun_anew = false;
  for (int step = 0; step < 60'000 && !was_begun_anew; ++step) {
    const auto mask = constraint->Mask(output, state);
    ASSERT_TRUE(mask.ok()) << mask.status();
    output.push_back(random() % 2 == 0 ? 'a' : 'b');
    constraint->Advance(output, state);
    was_begun_anew = state.generation > 0;
  }
  const int32_t marked = output[output.size() - 14];
  const auto mask = *constraint->Mask(output, state);
  EXPECT_EQ((mask['x' / 64] >> ('x' % 64) & 1) != 0, marked == 'a');
}

// Every a may open any of three brackets, so after n of them there are 3^n stacks.
TEST(Constraint, AmbiguityWithoutBoundsIsRefusedAndNotWorkedThrough) {
  const auto constraint = CompileText(
      Kind::kGrammar, "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"a\" root \"d\" | \"x\"\n");
  if (!constraint.ok()) {
    EXPECT_TRUE(absl::IsInvalidArgument(constraint.status()));
    return;
  }
  ConstraintState state;
  std::vector<int32_t> output;
  Status status;
  for (int step = 0; step < 20 && status.ok(); ++step) {
    status = (*constraint)->Mask(output, state).status();
    output.push_back('a');
    (*constraint)->Advance(output, state);
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
}

TEST(ConstraintCache, CompilesAFormOnceAndForgetsTheOldest) {
  const ByteTokenizer tokenizer;
  ConstraintCache cache(tokenizer, tokenizer.vocab_size());
  const ConstraintSpec spec{.kind = Kind::kRegex, .text = "a+"};
  const auto first = *cache.Get(spec);
  EXPECT_EQ(*cache.Get(spec), first);
  EXPECT_NE(*cache.Get({.kind = Kind::kGrammar, .text = "root ::= \"a+\""}), first);
  for (size_t i = 0; i < kMaxCachedConstraints; ++i) {
    ASSERT_TRUE(cache.Get({.kind = Kind::kRegex, .text = "b" + std::to_string(i)}).ok());
  }
  EXPECT_NE(*cache.Get(spec), first);
  EXPECT_FALSE(cache.Get({.kind = Kind::kRegex, .text = "("}).ok());
}

TEST(TokenTrie, LeavesOutControlTokensAndIdsWithoutLogits) {
  const ByteTokenizer tokenizer;
  const TokenTrie trie(tokenizer, 258);
  EXPECT_EQ(trie.tokens().size(), 258u);
  EXPECT_TRUE(trie.single_bytes().all());
  EXPECT_EQ(trie.BytesOf(300), "");
  EXPECT_EQ(TokenTrie(tokenizer, 1000).BytesOf(tokenizer.end()), "");
  for (size_t i = 0; i < trie.nodes().size(); ++i) {
    EXPECT_GT(trie.nodes()[i].skip_to, static_cast<int32_t>(i));
  }
}

// Bytes that no token brings alone are as good as forbidden: otherwise a token that ends before one
// could lead where nothing follows.
TEST(Grammar, TakesNoByteThatNoTokenBringsAlone) {
  GrammarBuilder builder;
  const RuleId rule = builder.AddRule("root");
  builder.Empty(builder.Literal(builder.StartOf(rule), "ab"), builder.AcceptOf(rule));
  builder.Empty(builder.Literal(builder.StartOf(rule), "ac"), builder.AcceptOf(rule));
  ByteSet usable;
  usable.set('a').set('c');
  Automaton automaton(std::make_shared<const Grammar>(*builder.Build(rule, usable)), 1000);
  const auto state = automaton.Next(Automaton::kStart, 'a');
  EXPECT_EQ(automaton.Next(state, 'b'), Automaton::kDead);
  EXPECT_TRUE(automaton.IsFinal(automaton.Next(state, 'c')));
  EXPECT_FALSE(builder.Build(rule, ByteSet().set('a')).ok());
}

}  // namespace
}  // namespace polyad
