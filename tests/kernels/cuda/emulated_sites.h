#pragma once

// Adapters' ops that are no matrix products, as the CUDA kernels take them: sparse and Kronecker
// deltas, rows, rotations and embeddings. In host memory, for the emulator.

#include <memory>

#include "tests/kernels/cuda/emulated_deltas.h"

namespace polyad::test {

std::unique_ptr<DeviceDelta> MakeDeviceSparse(const Sparse& op, bool exact);
std::unique_ptr<DeviceDelta> MakeDeviceRows(const DenseRows& op, bool exact);
std::unique_ptr<DeviceDelta> MakeDeviceKronecker(const Kronecker& op, bool exact);
std::unique_ptr<DeviceDelta> MakeDeviceRotation(const PairRotation& op);
std::unique_ptr<DeviceDelta> MakeDeviceRotation(const BlockRotation& op, bool exact);
std::unique_ptr<DeviceDelta> MakeDeviceEmbedding(const EmbeddingRows& op);
std::unique_ptr<DeviceDelta> MakeDeviceEmbedding(const EmbeddingLowRank& op);

}  // namespace polyad::test
