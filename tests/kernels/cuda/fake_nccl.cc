// Libraries in NCCL's place, by FAKE_NCCL: 0 works between threads of a process on host memory, 1
// has no ncclAllGather, 2 can make no group, 3 makes one whose calls fail.

#include <barrier>
#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

namespace {

struct Group {
  explicit Group(int size) : barrier(size), from(static_cast<size_t>(size)) {}
  std::barrier<> barrier;
  std::vector<const float*> from;
};

struct Comm {
  std::shared_ptr<Group> group;
  size_t rank = 0;
};

// Whoever asks for a stream of rank r says the number r + 1; 7 is ncclFloat32 and 0 ncclSum.
[[maybe_unused]] int Meet(const Comm& comm, const void* from, int type, const void* stream) {
  if (type != 7 || reinterpret_cast<size_t>(stream) != comm.rank + 1) return 4;
  comm.group->from[comm.rank] = static_cast<const float*>(from);
  comm.group->barrier.arrive_and_wait();
  return 0;
}

int num_comms = 0;

}  // namespace

extern "C" {

int ncclCommInitAll(void** comms, int num_devices, const int* devices);
int ncclCommDestroy(void* comm);
int ncclCommGetAsyncError(void* comm, int* error);
int ncclAllReduce(const void* from, void* to, size_t count, int type, int op, void* comm,
                  void* stream);
const char* ncclGetErrorString(int error);
const char* ncclGetLastError(void* comm);
int FakeNcclComms();

int ncclCommInitAll(void** comms, int num_devices, const int* devices) {
  if (FAKE_NCCL == 2) return 2;
  const auto group = std::make_shared<Group>(num_devices);
  for (int i = 0; i < num_devices; ++i) {
    if (devices[i] != devices[0] + i) return 4;
    comms[i] = new Comm{group, static_cast<size_t>(i)};
    ++num_comms;
  }
  return 0;
}

int ncclCommDestroy(void* comm) {
  delete static_cast<Comm*>(comm);
  --num_comms;
  return 0;
}

int ncclCommGetAsyncError(void*, int* error) {
  *error = FAKE_NCCL == 3 ? 6 : 0;
  return 0;
}

int ncclAllReduce(const void* from, void* to, size_t count, int type, int op, void* comm,
                  void* stream) {
  if (FAKE_NCCL == 3) return 0;
  const Comm& own = *static_cast<Comm*>(comm);
  if (op != 0 || Meet(own, from, type, stream) != 0) return 4;
  std::vector<float> sums(count, 0.0f);
  for (const float* theirs : own.group->from) {
    for (size_t i = 0; i < count; ++i) sums[i] += theirs[i];
  }
  own.group->barrier.arrive_and_wait();
  std::memcpy(to, sums.data(), count * sizeof(float));
  return 0;
}

#if FAKE_NCCL != 1
int ncclAllGather(const void* from, void* to, size_t count, int type, void* comm, void* stream);
int ncclAllGather(const void* from, void* to, size_t count, int type, void* comm, void* stream) {
  if (FAKE_NCCL == 3) return 0;
  const Comm& own = *static_cast<Comm*>(comm);
  if (Meet(own, from, type, stream) != 0) return 4;
  auto* next = static_cast<float*>(to);
  for (const float* theirs : own.group->from) {
    if (theirs != next) std::memcpy(next, theirs, count * sizeof(float));
    next += count;
  }
  own.group->barrier.arrive_and_wait();
  return 0;
}
#endif

const char* ncclGetErrorString(int error) {
  return error == 2 ? "unhandled system error" : "remote process exited";
}
const char* ncclGetLastError(void*) { return FAKE_NCCL == 2 ? "no socket interface found" : ""; }

int FakeNcclComms() { return num_comms; }
}
