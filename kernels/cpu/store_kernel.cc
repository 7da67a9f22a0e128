// Writes one token's k and v into its page (kv_layout.h).

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/lanes.h"

namespace polyad::cpu::POLYAD_ISA {
namespace {

// k goes down a column of the page, a pair of dimensions to a cache line.
void StoreKey(const PageToken& at, const float* k, uint16_t* page) {
  uint16_t* out = page + at.token * 2;
  for (int64_t d = 0; d < at.head_dim; d += kLanes) {
    uint16_t rounded[kLanes];
    Store(rounded, LoadFirst(k + d, at.head_dim - d < kLanes ? at.head_dim - d : kLanes));
    for (int64_t i = 0; i < kLanes; i += 2, out += kPairValues) std::memcpy(out, rounded + i, 4);
  }
}

void StoreKey(const PageToken& at, const float* k, float* page) {
  for (int64_t d = 0; d < at.head_dim; ++d) {
    page[d / 2 * kPairValues + d % 2 * kLanes + at.token] = k[d];
  }
}

template <typename Stored>
void StoreAs(const PageToken& at, const float* k, const float* v, Stored* page) {
  StoreKey(at, k, page);
  Stored* pair = page + at.padded_dim * kBlock + at.token / 2 * at.padded_dim * 2;
  for (int64_t d = 0; d < at.head_dim; d += kLanes) {
    const Lanes values = LoadFirst(v + d, at.head_dim - d < kLanes ? at.head_dim - d : kLanes);
    StoreInPair(pair + d * 2, values, at.token % 2);
  }
}

}  // namespace

void StoreToken(const PageToken& at, const float* k, const float* v, void* page) {
  if (at.bf16) return StoreAs(at, k, v, static_cast<uint16_t*>(page));
  StoreAs(at, k, v, static_cast<float*>(page));
}

}  // namespace polyad::cpu::POLYAD_ISA
