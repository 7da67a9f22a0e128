#pragma once

// Several loaded adapters applied together, in order, to one request: a version made of versions,
// without copying a tensor. Each part's change is multiplied by its scale:
//
//   y = W x + b + sum over parts of scale * delta(x),  and scale * f for its bottlenecks
//
// Parts whose change is no sum (transforms of a site's input or output, replaced norms or embedding
// rows, soft prompts, a rotary scaling, which serves the whole) take part at scale 1 only, in
// order; two parts may not both replace one norm, both bring a soft prompt or bring two rotary
// scalings, and an activated adapter (aLoRA) composes with nothing. Several LoRA parts are what
// PEFT's add_weighted_adapter(combination_type="cat") gives.

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/adapters/adapter_version.h"
#include "engine/base/status.h"

namespace polyad {

struct CompositionPart {
  std::shared_ptr<const AdapterVersion> adapter;
  float scale = 1.0f;
};

// INVALID_ARGUMENT naming the part and what keeps it from being composed. `identity` gives id and
// version; name and digest are made here from the parts'.
StatusOr<std::shared_ptr<const AdapterVersion>> Compose(const std::vector<CompositionPart>& parts,
                                                        AdapterVersion::Identity identity,
                                                        int64_t num_layers);

// Compositions in use, so that equal ones share a version: one segment in a batch, one cached
// prefix. Holds none of them itself. Thread-safe.
class CompositionCache {
 public:
  using Lease = std::shared_ptr<const AdapterVersion>;

  CompositionCache(int64_t num_layers, int64_t first_id)
      : num_layers_(num_layers), next_id_(first_id) {}
  StatusOr<Lease> Get(const std::vector<CompositionPart>& parts);

 private:
  // Ids of the parts and the bits of their scales, in order.
  using Key = std::vector<std::pair<int64_t, uint32_t>>;

  const int64_t num_layers_;
  std::mutex mutex_;
  std::map<Key, std::weak_ptr<const AdapterVersion>> in_use_;
  int64_t next_id_;
};

}  // namespace polyad
