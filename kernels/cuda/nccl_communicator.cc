#include "kernels/cuda/nccl_communicator.h"

#include <utility>

#include "kernels/api/check.h"

namespace polyad::cuda {
namespace {

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::shared_ptr<const NcclLibrary> library, NcclComm comm, int rank, int size,
                   std::function<void*()> stream)
      : library_(std::move(library)),
        comm_(comm),
        rank_(rank),
        size_(size),
        stream_(std::move(stream)) {}
  ~NcclCommunicator() override { library_->functions().comm_destroy(comm_); }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void AllReduce(std::span<float> numbers) override {
    Expect("all-reduce",
           library_->functions().all_reduce(numbers.data(), numbers.data(), numbers.size(),
                                            kNcclFloat32, kNcclSum, comm_, stream_()));
  }

  void AllGather(std::span<const float> own, std::span<float> all) override {
    Expect("all-gather", library_->functions().all_gather(own.data(), all.data(), own.size(),
                                                          kNcclFloat32, comm_, stream_()));
  }

 private:
  void Expect(const char* what, int error) {
    if (error == 0) {
      int since = 0;
      error = library_->functions().comm_get_async_error(comm_, &since);
      if (error == 0) error = since;
    }
    KERNEL_CHECK(error == 0, library_->Saying(what, error).c_str());
  }

  const std::shared_ptr<const NcclLibrary> library_;
  const NcclComm comm_;
  const int rank_;
  const int size_;
  const std::function<void*()> stream_;
};

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> MakeNcclGroup(
    const std::shared_ptr<const NcclLibrary>& library, std::span<const NcclRank> ranks) {
  std::vector<int> devices;
  for (const NcclRank& rank : ranks) devices.push_back(rank.device);
  std::vector<NcclComm> comms(ranks.size());
  const auto size = static_cast<int>(ranks.size());
  const int error = library->functions().comm_init_all(comms.data(), size, devices.data());
  if (error != 0) return absl::UnavailableError(library->Saying("a group of ranks", error));
  std::vector<std::unique_ptr<Communicator>> group;
  for (int rank = 0; rank < size; ++rank) {
    const auto at = static_cast<size_t>(rank);
    group.push_back(
        std::make_unique<NcclCommunicator>(library, comms[at], rank, size, ranks[at].stream));
  }
  return group;
}

}  // namespace polyad::cuda
