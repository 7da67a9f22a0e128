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
  std::vector<PrefixKey> keys = {RootKey({})};
  ExtendKeys(Tokens(15), keys);
  EXPECT_EQ(keys.size(), 1u);
  ExtendKeys(Tokens(33), keys);
  EXPECT_EQ(keys.size(), 3u);
}

TEST(PrefixKey, GrowingStepByStepGivesTheSameChain) {
  const std::vector<int32_t> tokens = Tokens(64);
  std::vector<PrefixKey> at_once = {RootKey({})};
  std::vector<PrefixKey> grown = at_once;
  ExtendKeys(tokens, at_once);
  for (size_t n = 0; n <= tokens.size(); n += 5) {
    ExtendKeys(std::span(tokens).first(n), grown);
  }
  ExtendKeys(tokens, grown);
  EXPECT_EQ(at_once, grown);
}

TEST(PrefixKey, AKeyHoldsEverythingBeforeIt) {
  std::vector<PrefixKey> left = {RootKey({})};
  std::vector<PrefixKey> right = left;
  std::vector<int32_t> tokens = Tokens(32);
  ExtendKeys(tokens, left);
  tokens[0] = 99;  // the second block's own tokens are equal
  ExtendKeys(tokens, right);
  EXPECT_NE(left[1], right[1]);
  EXPECT_NE(left[2], right[2]);
}

}  // namespace
}  // namespace polyad
