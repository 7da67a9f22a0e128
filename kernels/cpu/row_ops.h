#pragma once

// The ops that work on fp32 rows without a product's panels: sparse, sign, bias, and the transforms
// of inputs, outputs and embeddings. Values are kept in fp32.

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cpu/site_op.h"

namespace polyad::cpu {

absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Sparse& op, const SitePacking& packing);
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const SignBits& op, const SitePacking& packing);
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Bias& op, const SitePacking& packing);
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const InputScale& op, const SitePacking& packing);
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const BlockRotation& op,
                                                  const SitePacking& packing);
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const OutputScale& op,
                                                  const SitePacking& packing);
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const PairRotation& op,
                                                  const SitePacking& packing);
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const EmbeddingRows& op,
                                                  const SitePacking& packing);
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const EmbeddingLowRank& op,
                                                  const SitePacking& packing);

}  // namespace polyad::cpu
