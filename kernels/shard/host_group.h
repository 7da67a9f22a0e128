#pragma once

// Communicators between ranks whose memory the host reaches, each rank on a thread of its own. What
// a rank hands in is read by the others between two barriers.

#include <functional>
#include <memory>
#include <vector>

#include "kernels/api/communicator.h"

namespace polyad {

// One for each rank. finish(rank), where given, is called by the rank's thread before its numbers
// are read: it waits until a device that works on its own has made them.
std::vector<std::unique_ptr<Communicator>> MakeHostGroup(
    int size, const std::function<void(int rank)>& finish = {});

}  // namespace polyad
