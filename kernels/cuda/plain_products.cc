#include "kernels/cuda/plain_products.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/api/check.h"
#include "kernels/cuda/device_rows.h"

namespace polyad::cuda {
namespace {

// Batches that are compared with rows alone: below, at and beyond the sizes of tiles. Compared is
// the last row of each, in every batch that has it.
constexpr std::array<int64_t, 16> kBatches = {1,  2,  3,   8,   9,   16,  17,  32,
                                              64, 65, 128, 129, 256, 300, 511, 512};

// Numbers between -1 and 1 in steps of 1/128, which bf16 holds, by a linear congruential generator
// (Knuth's constants).
std::vector<uint16_t> SeededNumbers(int64_t count) {
  std::vector<uint16_t> numbers(static_cast<size_t>(count));
  uint64_t state = 20261123;
  for (uint16_t& number : numbers) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const auto step = static_cast<int32_t>(state >> 56) - 128;
    number =
        static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(step) / 128.0f) >> 16);
  }
  return numbers;
}

// Memory of a trial, given back at its end.
class TrialMemory {
 public:
  TrialMemory(Device& device, int64_t bytes)
      : device_(device), memory_(device.Allocate(Memory::kDevice, bytes)) {}
  ~TrialMemory() {
    if (memory_ != nullptr) device_.Free(Memory::kDevice, memory_);
  }
  TrialMemory(const TrialMemory&) = delete;
  TrialMemory& operator=(const TrialMemory&) = delete;
  void* get() const { return memory_; }

 private:
  Device& device_;
  void* const memory_;
};

// Products of seeded rows by one weight, alone and in batches.
class Trial {
 public:
  Trial(const PlainShape& shape, const simt::Bf16* weight, int64_t most_rows, Device& device)
      : shape_(shape),
        weight_(weight),
        most_rows_(most_rows),
        x_stride_(RoundUp(shape.in, kRowElements)),
        device_(device),
        x_(device, most_rows * x_stride_ * static_cast<int64_t>(sizeof(simt::Bf16))),
        y_(device, most_rows * shape.out * static_cast<int64_t>(sizeof(float))) {
    if (!has_memory()) return;
    std::vector<uint16_t> rows(static_cast<size_t>(most_rows * x_stride_), 0);
    const std::vector<uint16_t> numbers = SeededNumbers(most_rows * shape.in);
    for (int64_t row = 0; row < most_rows; ++row) {
      std::copy_n(numbers.data() + row * shape.in, shape.in, rows.data() + row * x_stride_);
    }
    const auto bytes = static_cast<int64_t>(rows.size() * sizeof(uint16_t));
    device.AwaitUpload(device.Upload(x_.get(), rows.data(), bytes));
  }
  bool has_memory() const { return x_.get() != nullptr && y_.get() != nullptr; }

  // -> why the algorithm will not do; empty: it will
  std::string Try(MatmulLibrary& library, const MatmulAlgorithm& algorithm) {
    std::vector<std::vector<float>> alone;
    for (const int64_t batch : kBatches) {
      if (batch > most_rows_) continue;
      alone.emplace_back();
      const std::string wrong = Run(library, algorithm, batch - 1, 1, {{0, &alone.back()}});
      if (!wrong.empty()) return wrong;
    }
    const bool any = std::any_of(alone.begin(), alone.end(), [](const std::vector<float>& row) {
      return std::any_of(row.begin(), row.end(), [](float value) { return value != 0.0f; });
    });
    if (!any) return "its products are all zero, which shows nothing";
    for (size_t i = 0; i < alone.size(); ++i) {
      std::vector<std::vector<float>> together(i + 1);
      std::vector<std::pair<int64_t, std::vector<float>*>> wanted;
      for (size_t row = 0; row <= i; ++row) wanted.emplace_back(kBatches[row] - 1, &together[row]);
      const std::string wrong = Run(library, algorithm, 0, kBatches[i], wanted);
      if (!wrong.empty()) return wrong;
      for (size_t row = 0; row <= i; ++row) {
        if (std::memcmp(together[row].data(), alone[row].data(),
                        alone[row].size() * sizeof(float)) != 0) {
          return absl::StrFormat("a row's bits differ alone and among %d", kBatches[i]);
        }
      }
    }
    return "";
  }

 private:
  // Rows [first, first + count): y = W x, y += W x. Those `wanted`, counted from `first`, come
  // back.
  std::string Run(MatmulLibrary& library, const MatmulAlgorithm& algorithm, int64_t first,
                  int64_t count,
                  const std::vector<std::pair<int64_t, std::vector<float>*>>& wanted) {
    auto* y = static_cast<float*>(y_.get());
    MatmulCall call{
        shape_,    weight_, static_cast<const simt::Bf16*>(x_.get()) + first * x_stride_,
        x_stride_, y,       shape_.out,
        count,     false};
    std::string wrong = library.Multiply(call, algorithm, device_.stream(QueueKind::kLoader));
    call.accumulate = true;
    if (wrong.empty()) {
      wrong = library.Multiply(call, algorithm, device_.stream(QueueKind::kLoader));
    }
    for (const auto& [row, values] : wanted) {
      values->resize(static_cast<size_t>(shape_.out));
      device_.Copy(QueueKind::kLoader, values->data(), y + row * shape_.out,
                   shape_.out * static_cast<int64_t>(sizeof(float)));
    }
    const std::string broken = device_.Wait(QueueKind::kLoader);
    KERNEL_CHECK(broken.empty(), broken.c_str());
    return wrong;
  }

  const PlainShape shape_;
  const simt::Bf16* const weight_;
  const int64_t most_rows_;
  const int64_t x_stride_;
  Device& device_;
  const TrialMemory x_;
  const TrialMemory y_;
};

}  // namespace

bool PlainProducts::IsRefused(const PlainShape& shape) const {
  const std::lock_guard lock(mutex_);
  const auto found = choices_.find(shape);
  return found != choices_.end() && !found->second.algorithm.has_value();
}

std::optional<MatmulAlgorithm> PlainProducts::Choose(const PlainShape& shape,
                                                     const simt::Bf16* weight, Device& device) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = choices_.find(shape);
    if (found != choices_.end()) return found->second.algorithm;
  }
  Choice choice = Find(shape, weight, device);
  const std::lock_guard lock(mutex_);
  return choices_.emplace(shape, std::move(choice)).first->second.algorithm;
}

PlainProducts::Choice PlainProducts::Find(const PlainShape& shape, const simt::Bf16* weight,
                                          Device& device) const {
  device.stream(QueueKind::kLoader);  // makes the device current
  Trial trial(shape, weight, most_rows_, device);
  if (!trial.has_memory()) return {{}, "the device has no memory to try it in"};
  std::string why_not = "the library has no algorithm for it";
  for (const MatmulAlgorithm& algorithm :
       library_->Candidates(shape, std::min(kChosenForRows, most_rows_))) {
    if (algorithm.splits > 1 || algorithm.reduction != 0) {
      why_not = "sums are made in parts";
      continue;
    }
    int64_t rows = 1;
    while (rows <= most_rows_ && library_->CanRun(shape, algorithm, rows)) ++rows;
    if (rows <= most_rows_) {
      why_not = absl::StrFormat("the library does not run it for %d rows", rows);
      continue;
    }
    why_not = trial.Try(*library_, algorithm);
    if (why_not.empty()) return {algorithm, ""};
  }
  return {{}, why_not};
}

void PlainProducts::Multiply(MatmulCall call, const MatmulAlgorithm& algorithm,
                             simt::Stream stream) const {
  KERNEL_CHECK(!simt::Records(stream), "a library's product among launches that are recorded");
  const int64_t rows = call.rows;
  for (int64_t row = 0; row < rows; row += call.rows) {
    call.rows = std::min(most_rows_, rows - row);
    const std::string wrong = library_->Multiply(call, algorithm, stream);
    KERNEL_CHECK(wrong.empty(), wrong.c_str());
    call.x += call.rows * call.x_stride;
    call.y += call.rows * call.y_stride;
  }
}

std::string PlainProducts::Describe() const {
  const std::lock_guard lock(mutex_);
  size_t taken = 0;
  std::string others;
  for (const auto& [shape, choice] : choices_) {
    taken += choice.algorithm.has_value() ? 1 : 0;
    if (choice.algorithm.has_value()) continue;
    absl::StrAppendFormat(&others, "; own kernels for [%d, %d]: %s", shape.out, shape.in,
                          choice.why_not);
  }
  return absl::StrFormat("%s for %d of %d weight shapes%s", library_->name(), taken,
                         choices_.size(), others);
}

}  // namespace polyad::cuda
