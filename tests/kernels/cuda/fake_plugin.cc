// Libraries for plugin_loader_test, by FAKE_PLUGIN: 0 is no plugin, 1 has another version, 2 finds
// no driver, 3 has one device.

#include <cstring>

#include "kernels/cuda/plugin_api.h"

namespace {

[[maybe_unused]] int32_t Count(int32_t* count, char* message, int64_t message_bytes) {
  *count = FAKE_PLUGIN == 3 ? 1 : 0;
  if (FAKE_PLUGIN != 2) return 0;
  std::strncpy(message, "no driver", static_cast<size_t>(message_bytes) - 1);
  return 1;
}

[[maybe_unused]] int32_t Describe(int32_t, PolyadCudaDevice* device, char*, int64_t) {
  std::strncpy(device->name, "Fake 9000", sizeof(device->name) - 1);
  device->major = 9;
  device->memory_bytes = 1 << 30;
  device->can_run = 1;
  return 0;
}

[[maybe_unused]] constexpr PolyadCudaPlugin kPlugin = {
    FAKE_PLUGIN == 1 ? POLYAD_CUDA_ABI_VERSION + 1 : POLYAD_CUDA_ABI_VERSION,
    sizeof(PolyadCudaPlugin), Count, Describe};

}  // namespace

#if FAKE_PLUGIN != 0
extern "C" const PolyadCudaPlugin* polyad_cuda_plugin();
extern "C" const PolyadCudaPlugin* polyad_cuda_plugin() { return &kPlugin; }
#endif
