#pragma once

// The blocks at the head of every sequence of an adapter with a soft prompt. They belong to the
// adapter's version: computed when it loads, by a request of the engine's own (MakeHeadRequest),
// found by every request of the version, forgotten when its last lease has ended. Any thread.

#include <memory>
#include <vector>

#include "engine/cache/prefix_key.h"
#include "engine/request/request.h"

namespace polyad {

// The keys of the head's blocks, and the chain that a request's own go on from. The adapter must
// share its head (AdapterVersion::shares_head).
PrefixChain HeadChain(const AdapterVersion& adapter);

// A request that computes the head and, for want of anything to answer, one token; it generates
// nothing and counts as nobody's.
std::shared_ptr<Request> MakeHeadRequest(std::shared_ptr<const AdapterVersion> adapter,
                                         int64_t now_us);

}  // namespace polyad
