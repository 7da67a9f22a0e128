// Attention over pages of codes, in lanes (attention_coded.h has the algebra).

#include "kernels/cpu/attention_coded_lanes.h"
#include "kernels/cpu/isa_functions.h"

namespace polyad::cpu::POLYAD_ISA {
namespace {

constexpr int64_t kCodedTileRows = 12;  // 12 x 2 sums, and operands, fill 32 registers

void Attend(const AttentionTile& tile, int64_t begin, int64_t end, const AttentionPartial& out) {
  BeginSpan(tile, out, &begin, &end);
  AttendInLanes(tile, begin, end, out);
}

}  // namespace

AttentionKernels MakeCodedAttentionKernels() {
  return {kCodedTileRows, CodedQueryBytes, PieceFactorBytes, ScaleCodedQuery,
          Attend,         Merge,           FinishCoded};
}

}  // namespace polyad::cpu::POLYAD_ISA
