#include "engine/runtime/soft_prompt_head.h"

#include <utility>

#include "engine/adapters/adapter_version.h"
#include "engine/base/check.h"
#include "engine/runtime/sequence.h"

namespace polyad {
namespace {

// A tenant of its own, so that it is served as soon as any other: no credential can have the name.
constexpr char kTenant[] = "\n";

constexpr int32_t kPriority = 100;

}  // namespace

PrefixChain HeadChain(const AdapterVersion& adapter, int64_t rope_choice) {
  POLYAD_CHECK(adapter.shares_head(), "only a shared soft prompt has blocks of its own");
  const AdapterVersion::Identity& identity = adapter.identity();
  PrefixChain chain;
  const int64_t turns_by = adapter.soft_prompt()->stores_kv ? 0 : rope_choice;  // as stored
  chain.keys = {RootKey({identity.digest, identity.id, "", "", 0, turns_by})};
  chain.num_head_blocks = adapter.num_virtual_tokens() / kBlockTokens;
  ExtendKeys(VirtualTokensOf(&adapter), chain);
  return chain;
}

std::vector<PrefixKey> HeadKeys(const AdapterVersion& adapter, int64_t num_choices) {
  std::vector<PrefixKey> keys;
  for (int64_t choice = 0; choice < num_choices; ++choice) {
    const PrefixChain chain = HeadChain(adapter, choice);
    keys.insert(keys.end(), chain.keys.begin(), chain.keys.end());
  }
  return keys;
}

std::shared_ptr<Request> MakeHeadRequest(std::shared_ptr<const AdapterVersion> adapter,
                                         int64_t now_us) {
  auto request = std::make_shared<Request>();
  request->is_head_request = true;
  request->tenant = kTenant;
  request->prompt_tokens = {0};
  request->stopping.max_tokens = 0;
  request->cache.bypass_prefix_cache = true;
  request->priority = kPriority;
  request->arrival_us = now_us;
  const AdapterVersion::Identity& identity = adapter->identity();
  request->adapter_identity = {identity.name, identity.version, ToHex(identity.digest)};
  request->adapter = std::move(adapter);
  return request;
}

}  // namespace polyad
