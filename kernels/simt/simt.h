#pragma once

// The language kernels are written in: CUDA's, behind functions that the CUDA compiler turns into
// CUDA and any C++20 compiler turns into calls of the emulator. A kernel source (.cuh) includes
// this and nothing else of either. Blocks and grids have one dimension; a block is whole warps of
// 32 threads; warp operations are of all 32 lanes. Names are the same on both sides:
//   ThreadIndex BlockIndex Lane WarpIndex      SharedArray SIMT_SHARED DynamicShared
//   BlockBarrier WarpBarrier                   CopyAsync16 CommitCopies WaitCopies
//   ShuffleXor Shuffle Ballot                  LoadMatrix4 LoadMatrix4Transposed MmaBf16
//   Load16 (aligned global memory)             Exp Tanh Erf InverseRoot, Bf16

#include "kernels/simt/launch_shape.h"
#include "kernels/simt/mutation.h"

#if defined(__CUDACC__)
#include "kernels/simt/cuda_device.h"
#else
#include "kernels/simt/emulated_device.h"
#endif
