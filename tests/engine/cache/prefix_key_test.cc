#include "engine/cache/prefix_key.h"

#include <gtest/gtest.h>

#include <numeric>

namespace polyad {
namespace {

std::vector<int32_t> Tokens(size_t count, int32_t first = 0) {
  std::vector<int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

PrefixRoot TenantRoot(std::string_view tenant) {
  PrefixRoot root;
  root.tenant = tenant;
  return root;
}

PrefixChain Plain() { return {{RootKey({})}, 0, std::nullopt}; }
PrefixChain OwnedAfterTwo(std::string_view tenant) {
  return {{RootKey({})}, 2, RootKey(TenantRoot(tenant))};
}

TEST(PrefixKey, EveryPartOfTheRootSeparates) {
  const PrefixRoot base{.adapter_version = AdapterVersionId(7), .tenant = "a", .salt = "s"};
  std::vector<PrefixRoot> roots(6, base);
  roots[1].adapter_version = AdapterVersionId(8);
  roots[2].adapter_digest[31] = 1;
  roots[3].tenant = "as";
  roots[3].salt = "";
  roots[4].tenant = "";
  roots[4].salt = "as";
  roots[5].private_request = 1;
  for (size_t i = 0; i < roots.size(); ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_NE(RootKey(roots[i]), RootKey(roots[j])) << i << " " << j;
  }
  EXPECT_EQ(RootKey(base), RootKey(roots[0]));
}

TEST(PrefixKey, OnlyFullBlocksHaveKeys) {
  PrefixChain chain = Plain();
  ExtendKeys(Tokens(15), chain);
  EXPECT_EQ(chain.keys.size(), 1u);
  ExtendKeys(Tokens(33), chain);
  EXPECT_EQ(chain.keys.size(), 3u);
}

TEST(PrefixKey, GrowingStepByStepGivesTheSameChain) {
  const std::vector<int32_t> tokens = Tokens(64);
  PrefixChain at_once = OwnedAfterTwo("a");
  PrefixChain grown = at_once;
  ExtendKeys(tokens, at_once);
  for (size_t n = 0; n <= tokens.size(); n += 5) {
    ExtendKeys(std::span(tokens).first(n), grown);
  }
  ExtendKeys(tokens, grown);
  EXPECT_EQ(at_once.keys, grown.keys);
}

TEST(PrefixKey, AKeyHoldsEverythingBeforeIt) {
  PrefixChain left = Plain();
  PrefixChain right = left;
  std::vector<int32_t> tokens = Tokens(32);
  ExtendKeys(tokens, left);
  tokens[0] = 99;  // the second block's own tokens are equal
  ExtendKeys(tokens, right);
  EXPECT_NE(left.keys[1], right.keys[1]);
  EXPECT_NE(left.keys[2], right.keys[2]);
}

TEST(PrefixKey, AChainIsSharedUpToWhereItsOwnerJoins) {
  PrefixChain ours = OwnedAfterTwo("a");
  PrefixChain theirs = OwnedAfterTwo("b");
  PrefixChain nobodys = Plain();
  for (PrefixChain* chain : {&ours, &theirs, &nobodys}) ExtendKeys(Tokens(64), *chain);
  for (size_t i = 1; i <= 2; ++i) {
    EXPECT_EQ(ours.keys[i], theirs.keys[i]);
    EXPECT_EQ(ours.keys[i], nobodys.keys[i]);
  }
  for (size_t i = 3; i <= 4; ++i) {
    EXPECT_NE(ours.keys[i], theirs.keys[i]);
    EXPECT_NE(ours.keys[i], nobodys.keys[i]);
  }
}

}  // namespace
}  // namespace polyad
