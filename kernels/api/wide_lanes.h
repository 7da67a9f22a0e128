#pragma once

// Whether code that is compiled twice, outside the kernels of one instruction set, runs the form of
// AVX-512 (F and BW): where the machine has it, unless the CPU backend was told to run with less
// (--isa). Both forms give the same numbers, so a change under way does no harm. Process-wide, as
// the instruction set is. Thread-safe.

namespace polyad {

bool UsesWideLanes();
// By the choice of the instruction set; the last one counts.
void AllowWideLanes(bool allowed);

}  // namespace polyad
