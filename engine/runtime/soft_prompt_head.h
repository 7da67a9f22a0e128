#pragma once

// The blocks at the head of every sequence of an adapter with a soft prompt. They belong to the
// adapter's version: computed when it loads, by a request of the engine's own (MakeHeadRequest),
// found by every request of the version, forgotten when its last lease has ended. Where embeddings
// turn by how long a request may get (engine/spec/rope_frequencies.h), each choice has a head of
// its own: the load computes that of short requests, the first longer one its own. Any thread.

#include <memory>
#include <vector>

#include "engine/cache/prefix_key.h"
#include "engine/request/request.h"

namespace polyad {

// A load takes its head's steps one by one where others generate, so that their next tokens hardly
// wait for it: a step of so few more rows reads the same weights.
inline constexpr int64_t kHeadTokensBesideDecodes = kBlockTokens / 2;

// The keys of the head's blocks, and the chain that a request's own go on from. The adapter must
// share its head (AdapterVersion::shares_head).
PrefixChain HeadChain(const AdapterVersion& adapter, int64_t rope_choice = 0);
// Of the heads of choices [0, num_choices), all of them.
std::vector<PrefixKey> HeadKeys(const AdapterVersion& adapter, int64_t num_choices);

// A request that computes the head and, for want of anything to answer, one token; it generates
// nothing and counts as nobody's.
std::shared_ptr<Request> MakeHeadRequest(std::shared_ptr<const AdapterVersion> adapter,
                                         int64_t now_us);

}  // namespace polyad
