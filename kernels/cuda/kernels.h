#pragma once

// Every kernel of the plugin, compiled once, in kernels.cu. The current device of the calling
// thread is the one meant.

namespace polyad::cuda {

// Whether every kernel can be loaded onto the current device.
bool HasCodeForDevice();

}  // namespace polyad::cuda
