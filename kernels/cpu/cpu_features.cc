#include "kernels/cpu/cpu_features.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#include "absl/strings/str_format.h"
#include "kernels/api/wide_lanes.h"

namespace polyad::cpu {
namespace {

// Bits of CPUID leaves 1 and 7 and of XCR0 (Intel SDM volume 2A "CPUID", volume 1 chapter 13).
constexpr uint32_t kLeaf1Ecx =
    (1u << 12) | (1u << 27) | (1u << 28) | (1u << 29);  // FMA OSXSAVE AVX F16C
constexpr uint32_t kLeaf7EbxAvx2 = 1u << 5;
constexpr uint32_t kLeaf7EbxAvx512 =
    (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F DQ BW VL
constexpr uint32_t kLeaf7EcxVnni = 1u << 11;
constexpr uint32_t kLeaf7EdxAmx = (1u << 22) | (1u << 24) | (1u << 25);  // BF16 TILE INT8
constexpr uint32_t kLeaf71EaxBf16 = 1u << 5;
constexpr uint64_t kXcr0Avx = 0x6;      // xmm, ymm
constexpr uint64_t kXcr0Avx512 = 0xe6;  // and opmask, upper zmm
constexpr uint64_t kXcr0Amx = 0x600e6;  // and tile configuration, tile data

bool Has(uint64_t word, uint64_t bits) { return (word & bits) == bits; }

uint64_t ReadXcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// The best level by CPUID and XCR0 alone; tiles still need the kernel's grant.
Isa DetectIsa() {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || !Has(ecx, kLeaf1Ecx)) return Isa::kScalar;
  const uint64_t xcr0 = ReadXcr0();
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return Isa::kScalar;
  if (!Has(ebx, kLeaf7EbxAvx2) || !Has(xcr0, kXcr0Avx)) return Isa::kScalar;
  const bool avx512 =
      Has(ebx, kLeaf7EbxAvx512) && Has(ecx, kLeaf7EcxVnni) && Has(xcr0, kXcr0Avx512);
  const bool amx = Has(edx, kLeaf7EdxAmx) && Has(xcr0, kXcr0Amx);
  if (!avx512 || __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) == 0) return Isa::kAvx2;
  if (!Has(eax, kLeaf71EaxBf16)) return Isa::kAvx2;
  return amx ? Isa::kAmx : Isa::kAvx512;
}

// Tile data is off until a process asks for it (Linux 5.16, Documentation/x86/xstate.rst); threads
// made later inherit.
bool RequestTiles() {
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
}

}  // namespace

std::string_view NameOf(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAmx:
      return "amx";
  }
  return "?";
}

Isa BestIsa() {
  static const Isa best = [] {
    const Isa isa = DetectIsa();
    return isa == Isa::kAmx && !RequestTiles() ? Isa::kAvx512 : isa;
  }();
  return best;
}

namespace {

Isa Chosen(Isa isa) {
  AllowWideLanes(isa >= Isa::kAvx512);
  return isa;
}

}  // namespace

absl::StatusOr<Isa> ChooseIsa(std::string_view wanted) {
  if (wanted == "auto") return Chosen(BestIsa());
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (wanted != NameOf(isa)) continue;
    if (isa <= BestIsa()) return Chosen(isa);
    return absl::FailedPreconditionError(
        absl::StrFormat("isa %s: this machine offers at most %s", wanted, NameOf(BestIsa())));
  }
  return absl::InvalidArgumentError(
      absl::StrFormat("isa: expected auto, scalar, avx2, avx512 or amx, got \"%s\"", wanted));
}

}  // namespace polyad::cpu
