#pragma once

// The ops that are products: low rank, dense, Kronecker and bottleneck, on the panel kernels of the
// base product. In kAuto mode matrices and the rows between two of them are bf16 with fp32 sums (of
// a Kronecker delta, D alone); in kF32 mode all is fp32.

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cpu/site_op.h"

namespace polyad::cpu {

absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const LowRank& op, const SitePacking& packing);
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Dense& op, const SitePacking& packing);
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const DenseRows& op, const SitePacking& packing);
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Kronecker& op, const SitePacking& packing);
absl::StatusOr<std::unique_ptr<CpuSiteOp>> PackOp(const Bottleneck& op, const SitePacking& packing);

}  // namespace polyad::cpu
