#pragma once

// What the ranks of a tensor-parallel group say to each other. Each rank has one, for one thread of
// its own; all make the same calls in the same order, and a call returns, or is queued on the
// rank's device, once its result may be used by that rank's next op. Numbers lie where the rank's
// Backend allocates.

#include <span>

namespace polyad {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // The sum of all ranks' numbers in their place, the same bits at every rank. As many at each.
  virtual void AllReduce(std::span<float> numbers) = 0;
  // The ranks' own, one after the other; as many at each. `own` may be its place in `all`.
  virtual void AllGather(std::span<const float> own, std::span<float> all) = 0;
};

}  // namespace polyad
