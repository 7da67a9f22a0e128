// Libraries for tests of what the program says of a plugin, by FAKE_PLUGIN: 0 is no plugin, 1 has
// another version, 2 finds no driver, 3 has two devices and refuses a backend on any, 4 is of
// another build, 5 has a device that it has no code for.

#include <cstring>

#include "kernels/cuda/plugin_api.h"

namespace {

[[maybe_unused]] int32_t Say(const char* what, char* message, int64_t message_bytes) {
  std::strncpy(message, what, static_cast<size_t>(message_bytes) - 1);
  return 1;
}

[[maybe_unused]] int32_t Count(int32_t* count, char* message, int64_t message_bytes) {
  *count = FAKE_PLUGIN == 2 ? 0 : FAKE_PLUGIN == 3 ? 2 : 1;
  return FAKE_PLUGIN == 2 ? Say("no driver", message, message_bytes) : 0;
}

[[maybe_unused]] int32_t Describe(int32_t, PolyadCudaDevice* device, char*, int64_t) {
  std::strncpy(device->name, "Fake 9000", sizeof(device->name) - 1);
  device->major = FAKE_PLUGIN == 5 ? 7 : 9;
  device->memory_bytes = 1 << 30;
  device->can_run = FAKE_PLUGIN == 5 ? 0 : 1;
  return 0;
}

[[maybe_unused]] int32_t Create(const PolyadCudaBackendOptions*, void**, char* message,
                                int64_t message_bytes) {
  return Say("it is no device at all", message, message_bytes);
}

[[maybe_unused]] int32_t CreateRanks(const PolyadCudaBackendOptions*, int32_t, void**, void**,
                                     char* message, int64_t message_bytes) {
  return Say("NCCL libnccl.so.2: it is nowhere", message, message_bytes);
}

[[maybe_unused]] constexpr PolyadCudaPlugin kPlugin = {
    FAKE_PLUGIN == 1 ? POLYAD_CUDA_ABI_VERSION + 1 : POLYAD_CUDA_ABI_VERSION,
    sizeof(PolyadCudaPlugin),
    FAKE_PLUGIN == 4 ? "another build" : POLYAD_PLUGIN_BUILD,
    Count,
    Describe,
    Create,
    CreateRanks};

}  // namespace

#if FAKE_PLUGIN != 0
extern "C" const PolyadCudaPlugin* polyad_cuda_plugin();
extern "C" const PolyadCudaPlugin* polyad_cuda_plugin() { return &kPlugin; }
#endif
