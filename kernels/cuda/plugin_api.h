#pragma once

// What the CUDA plugin offers to the program that opens it: a C ABI, and behind it a Backend, which
// is C++. So a program takes the plugin of its own build alone: `build` names the headers of
// kernels/api, the compiler and the Abseil that both were made with. The program does not depend on
// CUDA at all. The plugin is one shared library with one exported function, polyad_cuda_plugin. A
// change to anything here raises the version; a program takes its own version only. Functions
// return 0, or another number and a message in `message`. Any thread.

#include <stdint.h>

#define POLYAD_CUDA_ABI_VERSION 5u
#define POLYAD_CUDA_ENTRY "polyad_cuda_plugin"

extern "C" {

struct PolyadCudaDevice {
  char name[256];
  int32_t major;  // compute capability
  int32_t minor;
  int32_t num_multiprocessors;
  int32_t can_run;  // 1: the plugin has code for it
  int64_t memory_bytes;
};

enum PolyadCudaProducts {  // what multiplies by a base's bf16 weights
  POLYAD_CUDA_PRODUCTS_OWN = 0,
  POLYAD_CUDA_PRODUCTS_AUTO = 1,    // cuBLASLt where the system finds it
  POLYAD_CUDA_PRODUCTS_CUBLAS = 2,  // cuBLASLt, or an error
};

struct PolyadCudaBackendOptions {
  int32_t mode;          // polyad::ComputeMode
  int32_t device;        // in the driver's order
  int64_t memory_bytes;  // that it may take of the device; 0: all there is
  int32_t products;      // PolyadCudaProducts
  int64_t graph_rows;    // of a step that goes to the device as graphs, at most; 0: none. Not of
                         // ranks, whose collectives NCCL queues
};

struct PolyadCudaPlugin {
  uint32_t abi_version;
  uint32_t struct_bytes;  // sizeof(PolyadCudaPlugin)
  const char* build;
  int32_t (*count_devices)(int32_t* count, char* message, int64_t message_bytes);
  int32_t (*describe_device)(int32_t index, struct PolyadCudaDevice* device, char* message,
                             int64_t message_bytes);
  // *backend: a new polyad::Backend, which the caller deletes before the library is closed.
  int32_t (*create_backend)(const struct PolyadCudaBackendOptions* options, void** backend,
                            char* message, int64_t message_bytes);
  // Of `count` ranks, on the devices from options->device on, over NCCL: backends[i] as
  // create_backend's, communicators[i] a new polyad::Communicator of it, which the caller deletes
  // before that.
  int32_t (*create_ranks)(const struct PolyadCudaBackendOptions* options, int32_t count,
                          void** backends, void** communicators, char* message,
                          int64_t message_bytes);
};

typedef const struct PolyadCudaPlugin* (*PolyadCudaEntry)(void);

}  // extern "C"
