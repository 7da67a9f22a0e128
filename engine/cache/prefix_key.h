#pragma once

// Names of cached prefixes. A full block's key is 128 bits of SHA-256 over the key before it and
// its 16 tokens; the chain starts from a root that holds whose prefix it is: the adapter version
// (content digest and process-unique id), the tenant and the client's salt. Never a name, so a
// reloaded or renamed adapter cannot meet stale blocks.

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/base/digest.h"
#include "engine/base/strong_id.h"
#include "kernels/api/backend.h"

namespace polyad {

struct PrefixKey {
  std::array<uint8_t, 16> bytes{};
  friend auto operator<=>(const PrefixKey&, const PrefixKey&) = default;
};

struct PrefixRoot {
  Digest adapter_digest{};           // zero for the base model
  AdapterVersionId adapter_version;  // invalid for the base model
  std::string_view tenant;
  std::string_view salt;
  int64_t private_request = 0;  // not 0: a chain that only this request's choices share
  int64_t rope_choice = 0;      // what its keys turn by, of the adapter's or the base's tables
};

PrefixKey RootKey(const PrefixRoot& root);
PrefixKey ChainKey(const PrefixKey& previous,
                   std::span<const int32_t> tokens);  // kBlockTokens tokens

// Whose a findable block is when room is made: a tenant's, by a hash of its name, or an adapter's
// as its soft prompt.
using BlockOwner = uint64_t;
inline constexpr BlockOwner kSoftPrompts = 0;
BlockOwner OwnerOf(std::string_view tenant);  // never kSoftPrompts

// The keys of a sequence's full blocks: keys[0] is the root, keys[i] names tokens [0, i *
// kBlockTokens). Empty: nothing is shared. A chain's head may belong to more than the whole does: a
// soft prompt's blocks to every tenant of the adapter, the text before an activated adapter's
// invocation to the base. Then `owner` joins at the first block past the head.
struct PrefixChain {
  std::vector<PrefixKey> keys;
  int64_t num_head_blocks = 0;
  std::optional<PrefixKey> owner;
  BlockOwner head_owner = kSoftPrompts;  // of the head's blocks
  BlockOwner tail_owner = kSoftPrompts;  // of those past it

  bool empty() const { return keys.empty(); }
  BlockOwner OwnerOfBlock(int64_t block) const {
    return block < num_head_blocks ? head_owner : tail_owner;
  }
};

// Appends the keys of the full blocks of `tokens` that the chain does not hold yet.
void ExtendKeys(std::span<const int32_t> tokens, PrefixChain& chain);

}  // namespace polyad

template <>
struct std::hash<polyad::PrefixKey> {
  size_t operator()(const polyad::PrefixKey& key) const noexcept {
    size_t head;  // already uniformly distributed
    std::memcpy(&head, key.bytes.data(), sizeof(head));
    return head;
  }
};
