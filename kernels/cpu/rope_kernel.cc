// (a, b) <- (a cos - b sin, b cos + a sin) for the pairs (i, i + half) of a head (Su et al. 2021,
// half-split).

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/lanes.h"

namespace polyad::cpu::POLYAD_ISA {

void Rotate(const RotateHead& args, float* head) {
  if (args.norm != nullptr) {
    const Lanes inverse = Set(InverseRms(head, args.head_dim, args.norm_eps));
    for (int64_t i = 0; i < args.head_dim; i += kLanes) {
      const int64_t valid = args.head_dim - i < kLanes ? args.head_dim - i : kLanes;
      const Lanes normed = LoadFirst(head + i, valid) * inverse * LoadFirst(args.norm + i, valid);
      StoreFirst(head + i, normed, valid);
    }
  }
  float* second = head + args.half;
  for (int64_t i = 0; i < args.half; i += kLanes) {
    const int64_t valid = args.half - i < kLanes ? args.half - i : kLanes;
    const Lanes cos = LoadFirst(args.cos + i, valid);
    const Lanes sin = LoadFirst(args.sin + i, valid);
    const Lanes a = LoadFirst(head + i, valid);
    const Lanes b = LoadFirst(second + i, valid);
    StoreFirst(head + i, a * cos - b * sin, valid);
    StoreFirst(second + i, b * cos + a * sin, valid);
  }
}

}  // namespace polyad::cpu::POLYAD_ISA
