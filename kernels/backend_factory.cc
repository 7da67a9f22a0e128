#include "kernels/backend_factory.h"

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/plugin_loader.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/shard/host_group.h"
#include "kernels/shard/sharded_backend.h"

namespace polyad {
namespace {

absl::StatusOr<std::unique_ptr<Backend>> MakeOne(std::string_view name,
                                                 const BackendOptions& options) {
  if (name == "reference") return std::make_unique<ref::ReferenceBackend>(options.mode);
  return cpu::CpuBackend::Create(options);
}

// Ranks in the host's memory, each with its share of the threads.
absl::StatusOr<Ranks> MakeHostRanks(std::string_view name, const BackendOptions& options) {
  Ranks ranks;
  ranks.communicators = MakeHostGroup(options.num_ranks);
  for (int rank = 0; rank < options.num_ranks; ++rank) {
    BackendOptions own = options;
    const auto cores = static_cast<int>(std::thread::hardware_concurrency());
    const int all = options.num_threads > 0 ? options.num_threads : cores;
    own.num_threads =
        static_cast<int>(std::max<int64_t>(1, SliceOf(all, 1, rank, options.num_ranks).size()));
    absl::StatusOr<std::unique_ptr<Backend>> backend = MakeOne(name, own);
    if (!backend.ok()) return backend.status();
    ranks.backends.push_back(*std::move(backend));
  }
  return ranks;
}

absl::StatusOr<std::unique_ptr<Backend>> MakeOnHost(std::string_view name,
                                                    const BackendOptions& options) {
  if (options.num_ranks == 1) return MakeOne(name, options);
  absl::StatusOr<Ranks> ranks = MakeHostRanks(name, options);
  if (!ranks.ok()) return ranks.status();
  return ShardedBackend::Create(*std::move(ranks));
}

absl::StatusOr<std::unique_ptr<Backend>> MakeCuda(const BackendOptions& options) {
  if (options.num_ranks == 1) return cuda::MakeCudaBackend(options);
  absl::StatusOr<Ranks> ranks = cuda::MakeCudaRanks(options);
  if (!ranks.ok()) return ranks.status();
  return ShardedBackend::Create(*std::move(ranks));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(std::string_view name,
                                                     const BackendOptions& options) {
  if (options.num_threads < 0 || options.num_threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrFormat("threads: expected 0 to %d, got %d", kMaxThreads, options.num_threads));
  }
  if (options.num_ranks < 1 || options.num_ranks > kMaxRanks) {
    return absl::InvalidArgumentError(
        absl::StrFormat("ranks: expected 1 to %d, got %d", kMaxRanks, options.num_ranks));
  }
  if (name == "cpu" || name == "reference") return MakeOnHost(name, options);
  if (name != "cuda" && name != "auto") {
    return absl::InvalidArgumentError(
        absl::StrFormat("backend: expected cpu, reference, cuda or auto, got \"%s\"", name));
  }
  absl::StatusOr<std::unique_ptr<Backend>> cuda = MakeCuda(options);
  if (cuda.ok() || name == "cuda") return cuda;
  if (options.on_fallback) options.on_fallback(std::string(cuda.status().message()));
  BackendOptions alone = options;
  alone.num_ranks = 1;
  return MakeOnHost("cpu", alone);
}

}  // namespace polyad
