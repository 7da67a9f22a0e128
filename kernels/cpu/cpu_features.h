#pragma once

// Which instruction set the CPU backend runs with, chosen once per process. A level means all of
// its members, so that one kernel per level is enough: kAvx2 = AVX2, FMA, F16C; kAvx512 = F, BW,
// DQ, VL, VNNI, BF16 (Zen 4, Sapphire Rapids and later); kAmx = kAvx512 plus tiles of bf16 and
// int8, granted to this process by the kernel.

#include <string_view>

#include "absl/status/statusor.h"

namespace polyad::cpu {

enum class Isa { kScalar, kAvx2, kAvx512, kAmx };

std::string_view NameOf(Isa isa);

// The best level this machine and its operating system offer.
Isa BestIsa();

// `wanted`: auto | scalar | avx2 | avx512 | amx. INVALID_ARGUMENT for another word,
// FAILED_PRECONDITION for a level the machine lacks. kAmx asks the kernel for the tile state, for
// this process, once.
absl::StatusOr<Isa> ChooseIsa(std::string_view wanted);

}  // namespace polyad::cpu
