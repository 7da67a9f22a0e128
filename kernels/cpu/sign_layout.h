#pragma once

// A 1-bit delta as one level's lookups want it (site_kernels.h, SignPanels). Panels of four times
// the level's lanes of outputs, the last one as many lanes as it needs: [groups][words of a
// group][outputs of the panel]. Words hold as many inputs as the level looks up from one, so a
// group's last word is filled up with unset bits: zeros stand behind them. Immutable once made.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/api/delta_op.h"
#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/site_kernels.h"

namespace polyad::cpu {

class SignLayout {
 public:
  // RESOURCE_EXHAUSTED when memory is refused.
  static absl::StatusOr<SignLayout> Make(const SignBits& op, const SignLevel& level);

  // Part `slice` of `slices` about equal ones, whole panels; its first output goes to *first.
  SignPanels slice(int64_t slice, int64_t slices, int64_t* first) const;
  PrecisionBytes bytes() const {
    return PrecisionBytes(Precision::k1Bit, word_bytes_) + FloatBytes(scale_.size());
  }
  MemoryRange range() const { return {words_.get(), words_.get() + word_bytes_}; }
  // Working memory of one row's lookups, in bytes.
  int64_t table_bytes() const;

 private:
  SignLayout(const SignBits& op, const SignLevel& level);
  void Fill(const SignBits& op);

  SignLevel level_;
  int64_t out_;
  int64_t groups_;
  int64_t group_inputs_;
  int64_t group_words_;
  bool one_scale_;
  int64_t word_bytes_;
  std::shared_ptr<char> words_;
  std::vector<float> scale_;
};

}  // namespace polyad::cpu
