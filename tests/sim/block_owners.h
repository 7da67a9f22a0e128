#pragma once

// Who holds which block after a step of a simulation: a block is one tenant's with one adapter; a
// soft prompt's own blocks are every tenant's, and those before an invocation are the base's.

#include <cstdint>
#include <map>
#include <string>

#include "engine/adapters/adapter_version.h"
#include "engine/base/strong_id.h"
#include "engine/cache/prefix_key.h"
#include "engine/request/request.h"

namespace polyad {

class BlockOwners {
 public:
  // What is wrong with the request's holding `block` as its block `index`; empty: nothing.
  std::string Add(const Request& request, int64_t index, BlockId block) {
    const int64_t end = (index + 1) * kBlockTokens;
    Owner owner{request.tenant, request.adapter.get()};
    if (end <= request.adapter_begin) owner.adapter = nullptr;
    const auto [entry, inserted] = owners_.emplace(block.value(), owner);
    if (inserted) return "";
    if (entry->second.adapter != owner.adapter) return "a block is held across adapters";
    if (entry->second.tenant == owner.tenant) return "";
    const bool virtual_only =
        owner.adapter != nullptr && end <= owner.adapter->num_virtual_tokens();
    if (!virtual_only) return "a block is held across tenants";
    ++num_shared_;
    return "";
  }
  int64_t num_shared() const { return num_shared_; }  // blocks seen held by two tenants

 private:
  struct Owner {
    std::string tenant;
    const AdapterVersion* adapter = nullptr;
  };
  std::map<int64_t, Owner> owners_;
  int64_t num_shared_ = 0;
};

}  // namespace polyad
