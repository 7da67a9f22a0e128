#include "engine/cache/prefix_key.h"

#include <algorithm>

#include "engine/base/check.h"

namespace polyad {
namespace {

PrefixKey Truncate(const Digest& digest) {
  PrefixKey key;
  std::copy_n(digest.begin(), key.bytes.size(), key.bytes.begin());
  return key;
}

// Length first, so that ("ab", "c") and ("a", "bc") differ.
void AddText(Sha256& hash, std::string_view text) {
  hash.UpdateInt(static_cast<int64_t>(text.size()));
  hash.Update(text);
}

PrefixKey Join(const PrefixKey& previous, const PrefixKey& owner) {
  Sha256 hash;
  hash.Update("polyad prefix owner 1");
  hash.Update(previous.bytes.data(), previous.bytes.size());
  hash.Update(owner.bytes.data(), owner.bytes.size());
  return Truncate(hash.Finish());
}

}  // namespace

BlockOwner OwnerOf(std::string_view tenant) {
  return std::max<BlockOwner>(kSoftPrompts + 1, std::hash<std::string_view>()(tenant));
}

PrefixKey RootKey(const PrefixRoot& root) {
  Sha256 hash;
  hash.Update("polyad prefix root 1");
  hash.Update(root.adapter_digest.data(), root.adapter_digest.size());
  hash.UpdateInt(root.adapter_version.value());
  AddText(hash, root.tenant);
  AddText(hash, root.salt);
  hash.UpdateInt(root.private_request);
  hash.UpdateInt(root.rope_choice);
  return Truncate(hash.Finish());
}

PrefixKey ChainKey(const PrefixKey& previous, std::span<const int32_t> tokens) {
  POLYAD_CHECK(tokens.size() == static_cast<size_t>(kBlockTokens), "only full blocks have keys");
  Sha256 hash;
  hash.Update(previous.bytes.data(), previous.bytes.size());
  hash.Update(tokens.data(), tokens.size_bytes());
  return Truncate(hash.Finish());
}

void ExtendKeys(std::span<const int32_t> tokens, PrefixChain& chain) {
  std::vector<PrefixKey>& keys = chain.keys;
  POLYAD_CHECK(!keys.empty(), "keys[0] is the root");
  const size_t num_full = tokens.size() / kBlockTokens;
  for (size_t block = keys.size() - 1; block < num_full; ++block) {
    PrefixKey previous = keys.back();
    if (chain.owner.has_value() && static_cast<int64_t>(block) == chain.num_head_blocks) {
      previous = Join(previous, *chain.owner);
    }
    keys.push_back(ChainKey(previous, tokens.subspan(block * kBlockTokens, kBlockTokens)));
  }
}

}  // namespace polyad
